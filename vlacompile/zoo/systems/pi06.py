"""pi0.6: pi0.5 on Gemma 3, whose layers see windows, with a deeper expert and five steps of flow matching.

The text of a subtask, which the same model writes first in the authors' system, comes in with `TOKENS` and `MASK`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.gemma import Cache
from vlacompile.frontends.samplers import euler
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.gemma3 import GEMMA3_4B, Gemma3, Gemma3Sizes
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STEP, TOKENS, frame, words
from vlacompile.zoo.blocks.language_model import PlusOneNorm
from vlacompile.zoo.blocks.prefix_lm import EPSILON, pixels
from vlacompile.zoo.blocks.siglip import SO400M, Siglip
from vlacompile.zoo.blocks.statistics import Bounds
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.base", "image.left_wrist", "image.right_wrist", "image.back")
HORIZON, ACTIONS, ROBOT, STEPS, LENGTH, POOL = 50, 32, 14, 5, 200, 2
PERIODS = 4e-3, 4.0  # of the time embedding
VISION = replace(SO400M, side=448)
EXPERT = replace(GEMMA3_4B, width=1280, hidden=5120, condition=1280)


@dataclass(frozen=True)
class Sizes:
    vision: TowerSizes = VISION
    language: Gemma3Sizes = GEMMA3_4B
    expert: Gemma3Sizes = EXPERT
    vocabulary: int = 262144
    length: int = LENGTH


SMALL = Sizes(TowerSizes(32, 2, 4, 64, 14, 56), Gemma3Sizes(32, 6, 4, 2, 8, 64, 60),
              Gemma3Sizes(16, 6, 4, 2, 8, 32, 60, 16), 400, 20)


class Pi06(nn.Module):
    """Frames u8 [1,side,side,3] of four cameras, token ids i64 [1,L] with their mask, noise f32 [1,50,32] -> {"action":
    f32 [1,50,14]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, width = sizes, sizes.expert.width
        self.vision_tower = Siglip(sizes.vision)
        self.soft_embedding_norm = PlusOneNorm(sizes.vision.width, 1e-6)
        self.projection = nn.Linear(sizes.vision.width, sizes.language.width, bias=False)
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.language.width)
        self.language_model, self.expert = Gemma3(sizes.language), Gemma3(sizes.expert)
        self.action_in_proj, self.action_out_proj = nn.Linear(ACTIONS, width), nn.Linear(width, ACTIONS)
        self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
        self.bounds = Bounds(ROBOT, EPSILON)

    def _see(self, image: torch.Tensor) -> torch.Tensor:
        seen, rows = self.vision_tower(pixels(image)), self.sizes.vision.rows
        pooled = F.avg_pool2d(seen.transpose(1, 2).view(1, -1, rows, rows), POOL).flatten(2).transpose(1, 2)
        return self.projection(self.soft_embedding_norm(pooled))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        text = self.embed_tokens(inputs[TOKENS]) * math.sqrt(self.sizes.language.width)
        prefix = torch.cat([*(self._see(inputs[c]) for c in CAMERAS), text], 1)
        images = torch.ones(1, prefix.shape[1] - text.shape[1], dtype=torch.bool)
        there = torch.cat([images, inputs[MASK]], 1)
        places = there.cumsum(-1) - 1
        _, cache = self.language_model.run(prefix, there[:, None] & there[:, :, None], places, places)

        def velocity(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return self._velocity(sample, time, there, places, cache)

        chunk = euler([1 - k / STEPS for k in range(STEPS + 1)]).denoise(velocity, inputs[NOISE])
        return {"action": self.bounds.unnormalise(chunk[..., :ROBOT])}

    def _velocity(self, sample: torch.Tensor, time: torch.Tensor, there: torch.Tensor, places: torch.Tensor,
                  cache: Cache) -> torch.Tensor:
        fraction = torch.linspace(0.0, 1.0, self.sizes.expert.width // 2, dtype=torch.float64)
        angles = 2 * math.pi * time.to(torch.float64) / (PERIODS[0] * (PERIODS[1] / PERIODS[0]) ** fraction)
        moment = torch.cat([angles.sin(), angles.cos()]).to(torch.float32)[None]
        condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(moment))))
        own = there.sum(-1, keepdim=True) + torch.arange(HORIZON)[None]
        seen = torch.cat([there, torch.ones(1, HORIZON, dtype=torch.bool)], 1)[:, None].expand(1, HORIZON, -1)
        x, _ = self.expert.run(self.action_in_proj(sample), seen, own, torch.cat([places, own], 1), cache, condition)
        return self.action_out_proj(x)


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(sizes.length, sizes.vocabulary, sizes.length // 2)
    example = {**{c: frame(sizes.vision.side) for c in CAMERAS}, TOKENS: tokens, MASK: mask,
               NOISE: torch.randn(1, HORIZON, ACTIONS)}
    sources = {**dict.fromkeys((*CAMERAS, TOKENS, MASK), FRAME), NOISE: STEP}
    return Policy("pi06", Pi06(sizes).eval(), sources, example)


_CARD = "Physical Intelligence's model card of pi0.6, 2025-11"
SYSTEM = System(
    "pi0.6", 2025, 19, _CARD, make,
    says=("pi0.5 on Gemma 3, with a deeper expert and five steps",),
    assumptions=(
        "Gemma 3 4B as published; four images of 448 pixels, each pooled to 256 tokens; 200 tokens of text with the "
        "state, and, where RECAP trained it, the words that ask for a good outcome",
        "the prefix attends both ways, in five of six layers within 1024 tokens on each side",
        "the expert has Gemma 3's depth and heads, width 1280 and hidden width 5120, as OpenTau's reimplementation: "
        "936 M parameters without modulations; the card says 860 M and no widths",
        "modulations of two norms per layer and of the last, from the time alone, as in pi0.5; the two norms behind "
        "attention and MLP have weights",
        "time from 1 to 0 in five equal steps; 14 numbers per action, un-normalised from quantiles",
    ),
    published=(
        Published("latency", 63, "ms", "three cameras, five steps, one H100", _CARD),
        Published("rate", 50, "actions/s", "of the robot", _CARD),
    ))
