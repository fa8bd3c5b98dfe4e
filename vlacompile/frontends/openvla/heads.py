"""OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645): all actions of a chunk in one pass of the language model, which
attends both ways, and what reads them from its features.

The sequence is: beginning, patches of all images, the state, the time of denoising, the prompt, one place per number of
the chunk, the end. Each number is read from the feature before its place, as in a model that predicts the next token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.samplers import Sampler, ddim
from vlacompile.frontends.transformer import added

BLOCKS, END = 2, 2  # residual blocks of a head; the token </s>


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ffn(x) + x


class ResidualMlp(nn.Module):
    """features [1,H,D*width] -> [1,H,D]"""

    def __init__(self, features: int, hidden: int, actions: int):
        super().__init__()
        self.layer_norm1, self.fc1 = nn.LayerNorm(features), nn.Linear(features, hidden)
        self.mlp_resnet_blocks = nn.ModuleList(_Residual(hidden) for _ in range(BLOCKS))
        self.layer_norm2, self.fc2 = nn.LayerNorm(hidden), nn.Linear(hidden, actions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class TwoLayers(nn.Module):
    """Of the state, or of one noisy number, to the language model's width."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(count, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def features(language: nn.Module, begin: torch.Tensor, extra: Sequence[torch.Tensor], text: torch.Tensor,
             mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The language model's features before each place [1,n,width].

    begin [1,1,w]; extra: [1,k,w] each, patches and what follows them; text [1,L-1,w]: the prompt without its first
    token, padded on the right; mask bool [1,L]: of the whole prompt; places [1,n,w].
    """
    end = language.embed_tokens(torch.tensor([[END]]))
    between = torch.cat(list(extra), 1)
    sequence = torch.cat([begin, between, text, places, end], 1)
    ones = torch.ones(1, between.shape[1], dtype=torch.bool)
    there = torch.cat([mask[:, :1], ones, mask[:, 1:], torch.ones(1, places.shape[1] + 1, dtype=torch.bool)], 1)
    hidden = language(sequence, added(there[:, None]), there.cumsum(-1) - 1)
    first = 1 + between.shape[1]
    prompt = torch.cat([hidden[:, :1], hidden[:, first: first + text.shape[1]]], 1)
    last = torch.arange(mask.shape[1])[None] == mask.sum(-1, keepdim=True) - 1
    before = last.to(hidden.dtype)[:, None] @ prompt  # the feature of the prompt's last token, wherever it is
    begin_of_places = first + text.shape[1]
    return torch.cat([before, hidden[:, begin_of_places: begin_of_places + places.shape[1] - 1]], 1)


def film_condition(language: nn.Module, prompt: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean embedding [1,width] of the prompt and the end. prompt [1,L,w]."""
    end = language.embed_tokens(torch.tensor([[END]]))[:, 0]
    kept = mask[..., None].to(prompt.dtype)
    return ((prompt * kept).sum(1) + end) / (kept.sum(1) + 1.0)


def moment(time: torch.Tensor, width: int) -> torch.Tensor:
    """[1,1,width]: sines and cosines of a timestep."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -math.log(10000) / (half - 1))
    angles = time.to(torch.float32) * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None, None]


def sampler(steps: int, trained: int) -> Sampler:
    """diffusers' DDIMScheduler(trained, beta_schedule="squaredcos_cap_v2") with its defaults, in `steps` steps."""
    def signal(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    bars, product = [], 1.0
    for i in range(trained):
        product *= 1 - min(1 - signal((i + 1) / trained) / signal(i / trained), 0.999)
        bars.append(product)
    stride = trained // steps
    times = [i * stride for i in reversed(range(steps))]
    return ddim(times, [*(bars[t] for t in times), 1.0], "epsilon", 1.0)
