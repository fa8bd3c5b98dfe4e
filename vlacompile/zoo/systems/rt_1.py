"""RT-1: an EfficientNet that the instruction modulates, eight tokens per frame, and a transformer over six frames that
gives eleven action tokens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.frontends.tensorflow_files import tensorflow_files, tensorflow_index
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.efficientnet import EfficientNet, EfficientNetSizes, Film
from vlacompile.zoo.blocks.inputs import IMAGENET, PRESENT, frame, places
from vlacompile.zoo.blocks.kernel_names import renamed
from vlacompile.zoo.checkpoint import Checkpoint, is_torch, tensor_files
from vlacompile.zoo.system import TINY, Published, System

IMAGE, TEXT = "image.base", "embedding"
WINDOW, SEEN, BINS, EPS = 6, 8, 256, 1e-6
ENDS = 3  # ways of the mode, the first action token
# (least, most) of every further dimension: arm, gripper, base
BOUNDS = ((-1.0, 1.0),) * 3 + ((-math.pi / 2, math.pi / 2),) * 3 + ((-1.0, 1.0), (-math.pi, math.pi)) + (
    (-1.0, 1.0),) * 2
ACTIONS = 1 + len(BOUNDS)
STEP = SEEN + ACTIONS
B3 = EfficientNetSizes()


@dataclass(frozen=True)
class Sizes:
    """height, breadth: of a frame. side: to which it is resized. film: width of the embedding of the instruction, of
    the Universal Sentence Encoder, which the host computes."""

    height: int = 256
    breadth: int = 320
    side: int = 300
    net: EfficientNetSizes = B3
    film: int = 512
    width: int = 512
    depth: int = 8
    heads: int = 8
    head_dim: int = 128
    bottleneck: int = 64


SMALL = Sizes(64, 80, 76, EfficientNetSizes(0.25, 1.4), 16, 32, 2, 4, 8, 8)


class Modulation(nn.Module):
    def __init__(self, condition: int, channels: int):
        super().__init__()
        self.mult, self.add = nn.Linear(condition, channels), nn.Linear(condition, channels)

    def forward(self, condition: torch.Tensor) -> Film:
        return self.mult(condition)[..., None, None], self.add(condition)[..., None, None]


class Normalisation(nn.Module):
    """pixels [n,3,h,w] in 0..1, by the training's mean and variance; the authors' Keras divides twice."""

    def __init__(self) -> None:
        super().__init__()
        mean, spread = (torch.tensor(x) for x in IMAGENET)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", spread)  # of ImageNet's weights it is the spread, so that the two divide by it
        self.register_buffer("root", spread.sqrt(), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, over = (x.view(1, 3, 1, 1) for x in (self.mean, self.variance.sqrt() * self.root))
        return (pixels - mean) / over


class TokenLearner(nn.Module):
    """[n,places,width] -> [n,SEEN,width]: as many weighted means over the places."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.layernorm = nn.LayerNorm(width, EPS)
        self.hidden, self.final = nn.Linear(width, bottleneck), nn.Linear(bottleneck, SEEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.final(F.gelu(self.hidden(self.layernorm(x)), approximate="tanh"))
        return chosen.transpose(1, 2).softmax(-1) @ x


class Layer(nn.Module):
    """The feed-forward part is one linear layer."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, inner, self.heads = sizes.width, sizes.heads * sizes.head_dim, sizes.heads
        self.layernorm1, self.layernorm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.attention_output, self.ff = nn.Linear(inner, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        normed, n = self.layernorm1(x), x.shape[1]
        q, k, v = (p(normed).view(1, n, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(1, n, -1)
        x = x + self.attention_output(seen)
        return x + self.ff(self.layernorm2(x))


class Transformer(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        length = WINDOW * STEP
        self.token_emb, self.position_emb = nn.Linear(sizes.width, sizes.width), nn.Linear(length, sizes.width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.depth))
        self.output_tokens = nn.Linear(sizes.width, BINS)

    def forward(self, x: torch.Tensor, rows: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """x [1,n,width]; rows: i64 [n], of the positions; keep: bool [n,n]"""
        x = self.token_emb(x) + self.position_emb(torch.eye(x.shape[1]))[rows]
        for layer in self.layers:
            x = layer(x, keep)
        return self.output_tokens(x)


def visible() -> torch.Tensor:
    """bool [114,114]: causal, and an action token sees no action token."""
    acts = (torch.arange(STEP) >= SEEN).repeat(WINDOW)
    return torch.ones(WINDOW * STEP, WINDOW * STEP).tril().bool() & ~(acts[:, None] & acts)


class Rt1(nn.Module):
    """Six frames u8 [1,6,H,W,3], which of them there are since the episode began, bool [1,6], and the embedding f32
    [1,6,512] of the instruction that each was seen under ->
    {"action": f32 [1,1,13]}: the mode as one of three, then arm, gripper and base in their bounds."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.side, self.normalisation, self.net = sizes.side, Normalisation(), EfficientNet(sizes.net)
        self.films = nn.ModuleList(Modulation(sizes.film, w) for w in self.net.widths)
        self.conv1x1 = nn.Conv2d(self.net.channels, sizes.width, 1, bias=False)
        self.film = Modulation(sizes.film, sizes.width)
        self.token_learner = TokenLearner(sizes.width, sizes.bottleneck)
        self.action_token_emb = nn.Linear(BINS, sizes.width)
        self.transformer = Transformer(sizes)
        self.register_buffer("low", torch.tensor(BOUNDS)[:, 0])
        self.register_buffer("high", torch.tensor(BOUNDS)[:, 1])

    def images(self, frames: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """-> [1,6,SEEN,width]. The authors keep the tokens of a frame, whatever the instruction is later."""
        pixels = F.interpolate(frames[0].permute(0, 3, 1, 2) / 255.0, (self.side, self.side), mode="bilinear")
        x = self.conv1x1(self.net(self.normalisation(pixels), [film(text[0]) for film in self.films]))
        scale, shift = self.film(text[0])
        return self.token_learner((x * (1 + scale) + shift).flatten(2).transpose(1, 2))[None]

    def tokens(self, seen: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Action tokens i64 [1,ACTIONS], one after the other, as the authors compute them: they embed those so far, and
        feed zeros. They fill the window from its beginning and read the action behind the newest frame, which here is
        the last."""
        given = torch.zeros(1, WINDOW, ACTIONS, dtype=torch.long)
        rows = (places(present)[:, None] * STEP + torch.arange(STEP)).flatten()
        there = present[0, :, None].expand(-1, STEP).flatten()
        keep = visible() & (there | ~there[:, None])  # what is not there sees others, and nobody sees it
        first = (WINDOW - 1) * STEP + SEEN - 1  # the token before an action predicts it
        for k in range(ACTIONS):
            fed = torch.zeros_like(self.action_token_emb(F.one_hot(given, BINS).float()))
            logits = self.transformer(torch.cat([seen, fed], 2).flatten(1, 2), rows, keep)
            token = logits[:, first + k].argmax(-1)
            last = torch.cat([given[:, -1, :k], token[:, None], given[:, -1, k + 1:]], 1)
            given = torch.cat([given[:, :-1], last[:, None]], 1)
        return given[:, -1]

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self.tokens(self.images(inputs[IMAGE], inputs[TEXT]), inputs[PRESENT])
        mode = torch.where(tokens[:, :1] < ENDS, tokens[:, :1], 0) == torch.arange(ENDS)
        moves = tokens[:, 1:] / (BINS - 1) * (self.high - self.low) + self.low
        return {"action": torch.cat([mode.float(), moves], 1)[:, None]}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    window = torch.stack([frame(sizes.height, sizes.breadth) for _ in range(WINDOW)], 1)
    sources = {IMAGE: Source("observation", history=WINDOW), PRESENT: Source("observation"),
               TEXT: Source("task", history=WINDOW)}
    return Policy("rt_1", Rt1(sizes).eval(), sources, {
        IMAGE: window, PRESENT: torch.ones(1, WINDOW, dtype=torch.bool),
        TEXT: torch.randn(1, 1, sizes.film).expand(1, WINDOW, -1).clone()})


_ACTOR = "agent._actor_network."
_KERAS = renamed((
    (r"_transformer\._layers", "transformer.layers"), (r"mha1\._(query|key|value)_dense", r"\1"),
    (r"mha1\._output_dense", "attention_output"), (r"_transformer\._", "transformer."), (r"^_action", "action"),
    (r"_image_tokenizer\._token_learner", "token_learner"), (r"mlp\._hidden_layer", "hidden"),
    (r"mlp\._output_layer", "final"), (r"_image_tokenizer\._tokenizer\.", ""), (r"film_layer", "film"),
    (r"_projection_", "")))


def _layers(net: EfficientNet) -> list[str]:
    """The parts of the encoder that Keras numbers as layers with weights, in its order."""
    found = ["normalisation", "net.embeddings.convolution", "net.embeddings.batchnorm"]
    for i, block in enumerate(net.encoder.blocks):
        parts = ["expansion.expand_conv", "expansion.expand_bn"] if list(block.expansion.parameters()) else []
        parts += ["depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm", "squeeze_excite.reduce",
                  "squeeze_excite.expand", "projection.project_conv", "projection.project_bn"]
        found += [*(f"net.encoder.blocks.{i}.{part}" for part in parts), f"films.{i}"]
    return [*found, "net.encoder.top_conv", "net.encoder.top_bn"]


def of_tensorflow(files: TensorFiles, model: Rt1) -> TensorFiles:
    """The authors' variables under the names of this module; what is not the actor's keeps its name."""
    layers = _layers(model.net)
    place = re.compile(r"_image_tokenizer\._tokenizer\.net\.layer_with_weights-(\d+)")
    return files.under(lambda n: place.sub(lambda m: layers[int(m[1])], n.removeprefix(_ACTOR))).changed(_KERAS)


def files_of(path: Path, module: nn.Module) -> TensorFiles:
    return tensor_files(path) if is_torch(path) else of_tensorflow(tensorflow_files(tensorflow_index(path)), module)


_PAPER = "arXiv 2212.06817"
SYSTEM = System(
    "RT-1", 2022, 1, f"{_PAPER}, github.com/google-research/robotics_transformer 4569641", make,
    says=("an EfficientNet modulated by words, eleven action tokens",),
    code="Apache-2.0",
    weights="Apache-2.0",
    # which of the tokens is which dimension stands in no published file: the bounds are given in their order
    checkpoint=Checkpoint(files=files_of, statistics=("low", "high"), unread=(
        "normalisation.count", "agent._actor_optimizer.*", "global_step", "save_counter")),
    published=(
        Published("parameters", 35, "M", "16 of the tokenizer, 19 of the transformer", _PAPER),
        Published("rate", 3, "actions/s", "off the robot", _PAPER),
        Published("latency", 100, "ms, less than", "a budget", _PAPER),
    ))
