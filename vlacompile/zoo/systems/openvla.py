"""OpenVLA: DINOv2 and SigLIP side by side, Llama 2, and seven action tokens decoded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vlacompile.frontends.decoding import greedy
from vlacompile.frontends.openvla.model import LM_HEAD, TOWERS, LlamaSizes, VisionLanguage, behind
from vlacompile.frontends.vision_transformer import VisionSizes
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.statistics import Bounds
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System

CAMERA, ACTION, LENGTH = "image.primary", 7, 32
BINS = 256  # edges of bins in [-1, 1]; an action token is a bin, counted from the vocabulary's end
DINO = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SIGLIP = ((0.5,) * 3, (0.5,) * 3)


LLAMA = LlamaSizes(4096, 32, 32, 32, 11008, 32064, 1e-6, 10000.0)  # Llama 2 7B, with 64 more ids


@dataclass(frozen=True)
class Sizes:
    """Of both vision transformers without their last block, whose output nothing reads. padding: ids behind the
    vocabulary that are no tokens."""

    towers: tuple[VisionSizes, ...] = (VisionSizes(1024, 23, 16, 4096, 14, 224, 5, True),
                                       VisionSizes(1152, 26, 16, 4304, 14, 224))
    llama: LlamaSizes = LLAMA
    padding: int = 64

    @property
    def projector(self) -> tuple[int, ...]:
        seen, width = sum(t.width for t in self.towers), self.llama.width
        return (seen, 4 * seen, width, width)


SMALL = Sizes(tuple(replace(t, width=32, depth=2, heads=4, hidden=64, side=42) for t in Sizes().towers),
              LlamaSizes(32, 2, 4, 4, 64, 400, 1e-6, 10000.0), 16)


class OpenVla(VisionLanguage):
    """Frame u8 [1,side,side,3] and the prompt's token ids i64 [1,32] with their mask -> {"action": f32 [1,1,7]}.

    restricted: a token is chosen among those of actions, instead of among all (of which those that are no action
    become the last bin)."""

    def __init__(self, sizes: Sizes, restricted: bool):
        super().__init__(sizes.towers, sizes.llama, sizes.projector, True, moments(DINO, SIGLIP))
        self.last, self.restricted = sizes.llama.vocabulary - sizes.padding - 1, restricted
        edges = torch.linspace(-1, 1, BINS)
        self.register_buffer("centres", (edges[:-1] + edges[1:]) / 2, persistent=False)
        self.bounds = Bounds(ACTION, kept=1)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.language_model.lm_head(hidden)
        return logits[..., self.last + 1 - BINS: self.last + 1] if self.restricted else logits

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens + (self.last + 1 - BINS) if self.restricted else tokens)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        patches, text, mask = self.see(inputs[CAMERA]), self.embed(inputs[TOKENS]), inputs[MASK]
        prompt = torch.cat([text[:, :1], patches, text[:, 1:]], 1)
        there = torch.cat([mask[:, :1], torch.ones(1, patches.shape[1], dtype=torch.bool), mask[:, 1:]], 1)
        tokens = greedy(self.language_model.model, self._embed, self._scores, prompt, there, ACTION)
        bins = (BINS - 1 if self.restricted else self.last) - tokens
        return {"action": self.bounds.unnormalise(self.centres[bins.clamp(0, BINS - 2)])[:, None]}


def moments(*towers: tuple[Sequence[float], Sequence[float]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and deviation of pixels in [0, 1] f32 [1,3,1,1], per tower."""
    return [tuple(torch.tensor(values).view(1, 3, 1, 1) for values in pair) for pair in towers]


def unread(sizes: Sizes) -> tuple[str, ...]:
    depths = {name: tower.depth for name, tower in zip(TOWERS, sizes.towers, strict=True)}
    return (*(f"{begin}*" for begin in behind(depths)), LM_HEAD)


def prompt(vocabulary: int) -> dict[str, torch.Tensor]:
    tokens, mask = words(LENGTH, vocabulary, 22)
    return {TOKENS: tokens, MASK: mask}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    example = {CAMERA: frame(sizes.towers[0].side), **prompt(sizes.llama.vocabulary - sizes.padding)}
    return Policy("openvla", OpenVla(sizes, variant == "restricted").eval(), {CAMERA: FRAME, TOKENS: TASK, MASK: TASK},
                  example)


_PAPER = "arXiv 2406.09246"
SYSTEM = System(
    "OpenVLA", 2024, 10, f"{_PAPER}, github.com/openvla/openvla c8f03f4", make,
    says=("any token of the vocabulary may be written", "only the tokens that stand for actions may be written"),
    code="MIT",
    weights="MIT, and Llama 2's community licence", variants=("7b", "restricted"),
    checkpoint=Checkpoint(unread=unread(Sizes()), statistics=("bounds.*",)),
    published=(
        Published("rate", 6, "actions/s", "RTX 4090, bf16", _PAPER),
        Published("rate", 3, "actions/s", "A5000, int4", _PAPER),
        Published("parameters", 7.54, "B", "with the last block of both vision transformers", "the checkpoint"),
    ))
