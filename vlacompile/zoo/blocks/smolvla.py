"""SmolVLA (Shukor et al. 2025, arXiv 2506.01844): SigLIP and the first layers of SmolLM2 make keys and values, an
expert of the same depth denoises actions beside them. Weights are named as in LeRobot's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.samplers import euler
from vlacompile.frontends.transformer import Rope, added, attend, rotary, rotated
from vlacompile.zoo.blocks.experts import Kept, Pair, after, beside
from vlacompile.zoo.blocks.language_model import LanguageLayer, LanguageModel, LanguageSizes, norm
from vlacompile.zoo.blocks.siglip import BASE, Siglip, pixel_shuffle
from vlacompile.zoo.blocks.vision_tower import TowerSizes

HORIZON, STEPS, PADDED = 50, 10, 32  # PADDED: numbers of the padded state and action
PERIODS, ROTARY_BASE = (4e-3, 4.0), 10_000.0
SMOLLM2 = LanguageSizes(960, 16, 15, 5, 2560, 49280, head_dim=64, eps=1e-5, base=ROTARY_BASE)


@dataclass(frozen=True)
class SmolVlaSizes:
    """expert: width and hidden width; shuffle: side of the squares of patches that become a token."""

    vision: TowerSizes = BASE
    language: LanguageSizes = SMOLLM2
    expert: tuple[int, int] = (720, 2048)
    shuffle: int = 4


SMOLVLA = SmolVlaSizes()
TINY_SMOLVLA = SmolVlaSizes(TowerSizes(48, 2, 4, 96, 16, 128),
                            replace(SMOLLM2, width=64, depth=4, heads=6, kv_heads=2, head_dim=12, hidden=96,
                                    vocabulary=100), (48, 256))


def patch_places(rows: int) -> torch.Tensor:
    """Which learned position a patch gets: fractions just below i/rows fall into the interval before, so that the
    patches of a side are numbered 0, 0, 1, ..., rows - 2. So the released weights were trained."""
    at = (torch.arange(rows) - 1).clamp(min=0)
    return (at[:, None] * rows + at).flatten()


class _Pair(nn.Module):
    def __init__(self, sizes: SmolVlaSizes):
        super().__init__()
        language, vision = sizes.language, sizes.vision
        connector = nn.ModuleDict({"modality_projection": nn.ModuleDict(
            {"proj": nn.Linear(vision.width * sizes.shuffle**2, language.width, bias=False)})})
        self.vlm = nn.ModuleDict({
            "model": nn.ModuleDict({"vision_model": Siglip(vision, patch_places(vision.rows)), "connector": connector,
                                    "text_model": LanguageModel(language)}),
            "lm_head": nn.Linear(language.width, language.vocabulary, bias=False)})
        expert = replace(language, width=sizes.expert[0], hidden=sizes.expert[1], head_dim=language.dim, vocabulary=1)
        layers = nn.ModuleList(LanguageLayer(expert) for _ in range(language.depth))
        seen = language.kv_heads * language.dim
        for layer in layers[1::2]:
            layer.self_attn.k_proj, layer.self_attn.v_proj = (nn.Linear(seen, seen, bias=False) for _ in range(2))
        self.lm_expert = nn.ModuleDict({"layers": layers, "norm": norm(expert, expert.width)})


class SmolVla(nn.Module):
    """Noise -> normalised actions."""

    def __init__(self, sizes: SmolVlaSizes = SMOLVLA):
        super().__init__()
        self.sizes, width = sizes, sizes.expert[0]
        self.vlm_with_expert = _Pair(sizes)
        self.state_proj = nn.Linear(PADDED, sizes.language.width)
        self.action_in_proj, self.action_out_proj = nn.Linear(PADDED, width), nn.Linear(width, PADDED)
        self.action_time_mlp_in, self.action_time_mlp_out = nn.Linear(2 * width, width), nn.Linear(width, width)

    def forward(self, frames: Sequence[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor, state: torch.Tensor,
                noise: torch.Tensor) -> torch.Tensor:
        """frames: f32 [1,3,H,W] in [0, 1], of any size. tokens, mask [1,L]. state [1,32]: normalised and padded. noise
        [1,50,32] -> normalised actions [1,50,32]."""
        model = self.vlm_with_expert.vlm["model"]
        factor = math.sqrt(self.sizes.language.width)
        seen = [self._see(frame) * factor for frame in frames]
        text = model["text_model"].embed_tokens(tokens) * factor
        prefix = torch.cat([*seen, text, self.state_proj(state)[:, None]], 1)
        others = prefix.shape[1] - tokens.shape[1] - 1
        there = torch.cat([torch.ones(1, others, dtype=torch.bool), mask, torch.ones(1, 1, dtype=torch.bool)], 1)
        # the state is a block of its own: it sees all, images and text do not see it
        block = torch.arange(prefix.shape[1]) < prefix.shape[1] - 1
        visible = there[:, None] & there[:, :, None] & (block[None, :] | ~block[:, None])
        kept = Kept()
        model["text_model"](prefix, added(visible), there.cumsum(-1) - 1, kept)
        times = [1.0 - k / STEPS for k in range(STEPS + 1)]
        return euler(times).denoise(lambda sample, time: self._velocity(sample, time, there, kept.layers), noise)

    def _see(self, frame: torch.Tensor) -> torch.Tensor:
        model = self.vlm_with_expert.vlm["model"]
        pixels = letterboxed(frame, self.sizes.vision.side) * 2.0 - 1.0
        shuffled = pixel_shuffle(model["vision_model"](pixels), self.sizes.shuffle)
        return model["connector"]["modality_projection"]["proj"](shuffled)

    def _velocity(self, sample: torch.Tensor, time: torch.Tensor, there: torch.Tensor, cache: list[Pair]) \
            -> torch.Tensor:
        moving = self.action_in_proj(sample)
        both = torch.cat([moving, self._embedded(time).expand_as(moving)], 2)
        x = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))
        count, dim = x.shape[1], self.sizes.language.dim
        earlier = there[:, None].expand(1, count, there.shape[1])
        own = torch.ones(1, count, count, dtype=torch.bool).tril()
        places = torch.arange(count)[None]
        ropes = [rotary(p, dim, ROTARY_BASE) for p in (places + there.sum(-1, keepdim=True), places)]
        for i, layer in enumerate(self.vlm_with_expert.lm_expert["layers"]):
            if i % 2:
                x = after(layer, x, _across(layer, x, ropes[1], added(earlier), cache[i]))
            else:
                x, _ = beside(layer, x, ropes[0], added(torch.cat([earlier, own], 2)), cache[i])
        return self.action_out_proj(self.vlm_with_expert.lm_expert["norm"](x))

    def _embedded(self, time: torch.Tensor) -> torch.Tensor:
        """[width]: sines and cosines of a time in [0, 1]."""
        low, high = PERIODS
        fraction = torch.linspace(0.0, 1.0, self.sizes.expert[0] // 2, dtype=torch.float64)
        angles = 2 * math.pi / (low * (high / low) ** fraction) * time.to(torch.float64)
        return torch.cat([angles.sin(), angles.cos()]).to(torch.float32)


def _across(layer: nn.Module, x: torch.Tensor, rope: Rope, mask: torch.Tensor, cached: Pair) -> torch.Tensor:
    """Attention to the prefix alone, whose keys and values are projected once more."""
    attention = layer.self_attn
    k, v = (p(c.transpose(1, 2).flatten(2)).view(1, c.shape[2], c.shape[1], -1).transpose(1, 2)
            for p, c in zip((attention.k_proj, attention.v_proj), cached, strict=True))
    q = attention.q_proj(layer.input_layernorm(x)).view(1, x.shape[1], -1, attention.head_dim).transpose(1, 2)
    return attend(rotated(q, rope), k, v, mask, attention.scaling)


def letterboxed(frame: torch.Tensor, side: int) -> torch.Tensor:
    """f32 [1,3,H,W] -> [1,3,side,side], its aspect kept, with zeros left and above."""
    height, width = frame.shape[-2:]
    ratio = max(height, width) / side
    rows, columns = int(height / ratio), int(width / ratio)
    frame = F.interpolate(frame, (rows, columns), mode="bilinear", align_corners=False)
    return F.pad(frame, (side - columns, 0, side - rows, 0))
