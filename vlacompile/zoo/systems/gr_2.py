"""GR-2: a causal transformer over steps of language, state and the codes of two cameras, and a decoder of trajectories
from a latent variable; its sizes are those of the paper's scaling study.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.clip import ClipText, TextSizes
from vlacompile.zoo.blocks.gpt2 import Gpt2
from vlacompile.zoo.blocks.inputs import FRAME, PRESENT, STATE, TASK, TOKENS, frame, places
from vlacompile.zoo.blocks.vqgan import VqganEncoder, VqganSizes, signed
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.base", "image.hand")
WINDOW, HORIZON, ACTION, STATES, LATENT = 4, 10, 7, 7, 32
VQGAN, TEXT = VqganSizes(), TextSizes()


@dataclass(frozen=True)
class Sizes:
    width: int
    depth: int
    heads: int
    decoder: int = 2
    vision: VqganSizes = VQGAN
    text: TextSizes = TEXT

    @property
    def content(self) -> int:
        """Tokens of a step: language, state, codes of every camera; the query of the trajectory comes behind."""
        return 2 + len(CAMERAS) * self.vision.tokens


VARIANTS = {"95m": Sizes(768, 12, 12), "30m": Sizes(512, 8, 8), "312m": Sizes(1024, 24, 16),
            "719m": Sizes(1280, 36, 20)}
SMALL = {"decoder": 1, "vision": VqganSizes(32, 32, latent=8, codes=64), "text": TextSizes(32, 2, 2, 77, 100, 24)}


class TrajectoryLayer(nn.Module):
    """Queries see each other, then the latent variable and what the transformer gave."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.own, self.cross = (nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](x + self.own(x, x, x, need_weights=False)[0])
        x = self.norms[1](x + self.cross(x, memory, memory, need_weights=False)[0])
        return self.norms[2](x + self.down(F.gelu(self.up(x))))


class Gr2(nn.Module):
    """Frames u8 [1,4,side,side,3] of two cameras, states f32 [1,4,7], which of these steps there are since the episode
    began, bool [1,4], and token ids i64 [1,77] -> the trajectory {"action": f32 [1,10,7]}: poses of the hand, and the
    gripper."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.text, self.vqgan = ClipText(sizes.text), VqganEncoder(sizes.vision)
        self.codes = nn.Embedding(sizes.vision.codes, width)
        self.read, self.feel = nn.Linear(sizes.text.out, width), nn.Linear(STATES, width)
        self.places = nn.Parameter(torch.randn(sizes.content, width) * 0.1)
        self.steps, self.query = nn.Embedding(WINDOW, width), nn.Embedding(1, width)
        self.norm, self.transformer = nn.LayerNorm(width), Gpt2(width, sizes.depth, sizes.heads)
        self.latent, self.queries = nn.Linear(LATENT, width), nn.Embedding(HORIZON, width)
        self.decoder = nn.ModuleList(TrajectoryLayer(width, sizes.heads) for _ in range(sizes.decoder))
        self.head = nn.Linear(width, ACTION)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes, width = self.sizes, self.sizes.width
        seen = [self.codes(self.vqgan(signed(inputs[c][0])))[None] for c in CAMERAS]  # [1,4,codes,width]
        text = self.read(self.text(inputs[TOKENS])).view(1, 1, 1, width).expand(-1, WINDOW, -1, -1)
        content = torch.cat([text, self.feel(inputs[STATE])[:, :, None], *seen], 2) + self.places
        query = self.query.weight.view(1, 1, 1, width).expand(-1, WINDOW, -1, -1)
        x = torch.cat([content + self.steps(places(inputs[PRESENT]))[None, :, None], query], 2).view(1, -1, width)
        visible = (torch.arange(sizes.content + 1) < sizes.content).repeat(WINDOW)
        there = inputs[PRESENT][0, :, None].expand(-1, sizes.content + 1).flatten()
        keep = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril() & visible & (there | ~there[:, None])
        plan = self.transformer(self.norm(x), keep)[:, -1:]
        memory = torch.cat([self.latent(torch.zeros(1, 1, LATENT)), plan], 1)  # the prior's mean
        made = self.queries.weight[None]
        for layer in self.decoder:
            made = layer(made, memory)
        return {"action": self.head(made)}


def make(variant: str, size: str) -> Policy:
    sizes = VARIANTS[variant]
    if size == TINY:
        sizes = replace(sizes, width=32, depth=2, heads=2, **SMALL)
    words = torch.randint(1, sizes.text.vocabulary - 1, (1, 77)) * (torch.arange(77) < 9)
    words[:, 9] = sizes.text.vocabulary - 1
    window = Source("observation", history=WINDOW)
    example = {TOKENS: words, STATE: torch.randn(1, WINDOW, STATES),
               PRESENT: torch.ones(1, WINDOW, dtype=torch.bool), **{
        c: torch.stack([frame(sizes.vision.side) for _ in range(WINDOW)], 1) for c in CAMERAS}}
    sources = {TOKENS: TASK, STATE: window, PRESENT: FRAME, **dict.fromkeys(CAMERAS, window)}
    return Policy("gr_2", Gr2(sizes).eval(), sources, example)


_PAPER = "arXiv 2410.06158"
SYSTEM = System(
    "GR-2", 2024, 6, _PAPER, make,
    says=(
        "95 M trained parameters",
        "30 M trained parameters",
        "312 M trained parameters",
        "719 M trained parameters"),
    variants=tuple(VARIANTS),
    assumptions=(
        "text: CLIP's encoder, as in GR-1; its embedding is one token of every step",
        "frames: 256 codes per camera of a VQGAN with 16 pixels per code, two cameras of 256 pixels, all as tokens",
        "a window of 4 steps, which begins with the episode's first one as GR-1's does; a query per step that nobody "
        "sees, the last one's answer is decoded",
        "transformer: GPT-2's sizes with which the trained parameters add up to the paper's 30, 95, 312 and 719 M",
        "trajectory: 10 poses from 2 layers of attention to the answer and to a latent variable of 32 numbers, whose "
        "prior's mean 0 is taken",
        "whole-body control, which makes joint commands at 200 Hz of a trajectory, is not part of it",
    ),
    published=(
        Published("parameters", 230, "M", "of which 95 are trained", _PAPER),
        Published("success", 97.7, "% of over 100 tasks", "real robot", _PAPER),
    ))
