"""pi0 (Black et al. 2024, arXiv 2410.24164) and pi0.5 (Physical Intelligence 2025, arXiv 2504.16054) as openpi computes
them in PyTorch: flow matching by an action expert beside a PaliGemma prefix.

Sizes are read from the weights; what they do not show is a constant of openpi's code: heads, norms' epsilon, the bounds
of the time embedding. Images that a robot does not have are masked in the original; here they are left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.gemma import AdaptiveNorm, Cache, Gemma, GemmaLayer
from vlacompile.frontends.samplers import euler
from vlacompile.frontends.tensor_files import TensorFiles, fill
from vlacompile.frontends.transformer import Attention, GatedMlp, rotary
from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer
from vlart.errors import SourceError

VISION_HEADS, KV_HEADS, EPS, ROTARY_BASE = 16, 1, 1e-6, 10_000.0
PERIODS = (4e-3, 4.0)  # of the time embedding
MASKED = -2.3819763e38  # added to scores
BOTH, PALIGEMMA = "paligemma_with_expert.", "paligemma_with_expert.paligemma.model."
VISION, LANGUAGE = f"{PALIGEMMA}vision_tower.vision_model.", f"{PALIGEMMA}language_model."
EXPERT = f"{BOTH}gemma_expert.model."
EMBEDDING, HEAD = f"{LANGUAGE}embed_tokens.weight", f"{BOTH}paligemma.lm_head.weight"  # one weight, saved once
UNUSED = {HEAD, f"{BOTH}gemma_expert.lm_head.weight"}
gelu = functools.partial(F.gelu, approximate="tanh")


@dataclass(frozen=True)
class GemmaSizes:
    width: int
    depth: int
    heads: int
    head_dim: int
    hidden: int
    condition: int | None


@dataclass(frozen=True)
class Sizes:
    """kind: "pi0" or "pi05". action: numbers of the padded action and state."""

    kind: str
    action: int
    vocabulary: int
    vision: VisionSizes
    language: GemmaSizes
    expert: GemmaSizes


def sizes_of(files: TensorFiles) -> Sizes:
    """Raises SourceError if the weights are not those of pi0 or pi0.5."""
    shapes = files.shapes
    kind = "pi0" if "state_proj.weight" in shapes else "pi05" if "time_mlp_in.weight" in shapes else None
    if kind is None:
        raise SourceError("the weights are neither those of pi0 nor of pi0.5", where=str(files.where),
                          why="they have neither state_proj nor time_mlp_in",
                          fix="give the directory that openpi's training or its conversion to PyTorch wrote")
    try:
        patches = shapes[f"{VISION}embeddings.patch_embedding.weight"]
        tokens = shapes[f"{VISION}embeddings.position_embedding.weight"][0]
        vision = VisionSizes(patches[0], _count(shapes, f"{VISION}encoder.layers."), VISION_HEADS,
                             shapes[f"{VISION}encoder.layers.0.mlp.fc1.weight"][0], patches[2],
                             math.isqrt(tokens) * patches[2], final=True, activation=gelu)
        found = Sizes(kind, shapes["action_in_proj.weight"][1], shapes[_embedding(files)][0], vision,
                      _gemma_sizes(shapes, LANGUAGE, False), _gemma_sizes(shapes, EXPERT, kind == "pi05"))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise SourceError("the weights are not complete", where=str(files.where), why=f"a size cannot be read: {error}",
                          fix="copy the checkpoint again, completely") from error
    gemmas = (found.language, found.expert)
    if vision.width % VISION_HEADS or math.isqrt(tokens) ** 2 != tokens or any(
            g.head_dim % 2 or g.heads < 1 or g.depth != found.language.depth for g in gemmas):
        raise SourceError("the weights have sizes that do not fit each other", where=str(files.where),
                          why=f"{vision.width} for {VISION_HEADS} heads, {tokens} patches of a square; "
                              + ", ".join(f"{g.heads} heads of {g.head_dim} in {g.depth} layers" for g in gemmas),
                          fix="use the files of one training")
    return found


def _embedding(files: TensorFiles) -> str:
    return EMBEDDING if EMBEDDING in files.shapes else HEAD


def _gemma_sizes(shapes, prefix: str, conditioned: bool) -> GemmaSizes:
    head_dim, width = shapes[f"{prefix}layers.0.self_attn.k_proj.weight"]
    heads = shapes[f"{prefix}layers.0.self_attn.q_proj.weight"][0] // (head_dim // KV_HEADS)
    return GemmaSizes(width, _count(shapes, f"{prefix}layers."), heads, head_dim // KV_HEADS,
                      shapes[f"{prefix}layers.0.mlp.gate_proj.weight"][0], width if conditioned else None)


def _count(shapes, prefix: str) -> int:
    return len({n.removeprefix(prefix).partition(".")[0] for n in shapes if n.startswith(prefix)})


def _gemma(sizes: GemmaSizes) -> Gemma:
    layers = [GemmaLayer(Attention(sizes.width, sizes.heads, KV_HEADS, sizes.head_dim),
                         GatedMlp(sizes.width, sizes.hidden, gelu), sizes.width, EPS, sizes.condition)
              for _ in range(sizes.depth)]
    return Gemma(layers, AdaptiveNorm(sizes.width, EPS, sizes.condition),
                 lambda x, positions: rotary(positions, sizes.head_dim, ROTARY_BASE))


class FlowPolicy(nn.Module):
    """Noise -> normalised actions."""

    def __init__(self, sizes: Sizes, horizon: int, steps: int):
        super().__init__()
        self.horizon, self.times = horizon, _times(steps)
        width = sizes.expert.width
        self.vision = VisionTransformer(sizes.vision)
        self.projector = nn.Linear(sizes.vision.width, sizes.language.width)
        self.embed = nn.Embedding(sizes.vocabulary, sizes.language.width)
        self.language, self.expert = _gemma(sizes.language), _gemma(sizes.expert)
        self.action_in_proj, self.action_out_proj = nn.Linear(sizes.action, width), nn.Linear(width, sizes.action)
        self.conditioned = sizes.kind == "pi05"
        if self.conditioned:
            self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(sizes.action, width)
            self.action_time_mlp_in, self.action_time_mlp_out = nn.Linear(2 * width, width), nn.Linear(width, width)

    def forward(self, frames: Sequence[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor,
                state: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        """frames: pixels [1,3,s,s] in [-1, 1]. tokens, mask [1,L]: padded on the right. state [1,A]: padded; None in
        pi0.5. noise [1,H,A] -> actions [1,H,A]."""
        seen = [self.projector(self.vision(frame)) for frame in frames]
        text = self.embed(tokens)
        prefix = torch.cat([*seen, text * math.sqrt(text.shape[-1])], 1)
        there = torch.cat([torch.ones(1, prefix.shape[1] - mask.shape[1], dtype=torch.bool), mask], 1)
        positions = there.cumsum(-1) - 1
        _, cache = self.language.run(prefix, _scores(there[:, None] & there[:, :, None]), positions)

        def velocity(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self._velocity(sample, time, state, there, cache)

        return euler(self.times).denoise(velocity, noise)

    def _velocity(self, sample: torch.Tensor, time: torch.Tensor, state: torch.Tensor | None, there: torch.Tensor,
                  cache: Cache) -> torch.Tensor:
        moment, moving = self._embedded(time)[None], self.action_in_proj(sample)
        condition = None
        if state is None:
            condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(moment))))
        else:
            both = torch.cat([moving, moment[:, None].expand_as(moving)], 2)
            moving = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))
            moving = torch.cat([self.state_proj(state)[:, None], moving], 1)
        count = moving.shape[1]
        own = torch.ones(count, count, dtype=torch.bool)
        if state is not None:
            own[0, 1:] = False  # the state does not see the actions
        visible = torch.cat([there[:, None].expand(1, count, there.shape[1]), own[None]], 2)
        positions = there.sum(-1, keepdim=True) + torch.arange(count)[None]
        x, _ = self.expert.run(moving, _scores(visible), positions, cache, condition)
        return self.action_out_proj(x[:, -self.horizon:])

    def _embedded(self, time: torch.Tensor) -> torch.Tensor:
        """[width]: sines and cosines of a time in [0, 1]."""
        low, high = PERIODS
        fraction = torch.linspace(0.0, 1.0, self.action_in_proj.out_features // 2, dtype=torch.float64)
        angles = 1.0 / (low * (high / low) ** fraction) * 2 * math.pi * time.to(torch.float64)
        return torch.cat([angles.sin(), angles.cos()]).to(torch.float32)


def _scores(visible: torch.Tensor) -> torch.Tensor:
    return torch.where(visible[:, None], 0.0, MASKED)


def _times(steps: int) -> tuple[float, ...]:
    """1, then minus 1/steps in fp32 as long as it is not below -1/(2 steps)."""
    dt, time, found = np.float32(-1.0 / steps), np.float32(1.0), [1.0]
    while time >= -dt / 2:
        time = time + dt
        found.append(float(time))
    return tuple(found)


def load(files: TensorFiles, sizes: Sizes, horizon: int, steps: int, weights: bool) -> FlowPolicy:
    """weights: False within `weightless`. Raises SourceError if names or shapes do not fit."""
    if weights:
        with torch.device("meta"):  # nothing is initialised that the file replaces
            model = FlowPolicy(sizes, horizon, steps)
    else:
        model = FlowPolicy(sizes, horizon, steps)
    unused = UNUSED - {_embedding(files)}
    fill(model, files, places(model, files), unused.__contains__, weights)
    return model


_IN_VISION = {"patch_embed.proj": "embeddings.patch_embedding", "pos_embed": "embeddings.position_embedding.weight",
              "norm": "post_layernorm", "norm1": "layer_norm1", "norm2": "layer_norm2",
              "attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def places(model: nn.Module, files: TensorFiles) -> dict[str, tuple[str, ...]]:
    """{parameter: its names in the file}"""
    found = {}
    for name, _ in model.named_parameters():
        part, _, rest = name.partition(".")
        if part == "vision":
            found[name] = _vision_places(rest)
        elif part in ("language", "expert"):
            found[name] = ((LANGUAGE if part == "language" else EXPERT) + rest,)
        else:
            found[name] = ({"embed": _embedding(files), "projector": f"{PALIGEMMA}multi_modal_projector.linear.{rest}"}
                           .get(part, name),)
    return found


def _vision_places(name: str) -> tuple[str, ...]:
    if name == "pos_embed":
        return (VISION + _IN_VISION[name],)
    layer, within = "", name
    if name.startswith("blocks."):
        _, number, within = name.split(".", 2)
        layer = f"encoder.layers.{number}."
    module, _, kind = within.rpartition(".")
    if module == "attn.qkv":
        return tuple(f"{VISION}{layer}self_attn.{p}_proj.{kind}" for p in "qkv")
    return (f"{VISION}{layer}{_IN_VISION[module]}.{kind}",)
