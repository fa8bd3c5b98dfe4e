"""pi0-FAST: PaliGemma that writes the actions of a chunk as FAST's tokens, up to an end that it chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vlacompile.frontends.fast import read_fast
from vlacompile.frontends.tensor_files import TensorFiles
from vlacompile.policy.action_decoding import Pieces, from_range
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.fast import VOCABULARY, stand_in
from vlacompile.zoo.blocks.inputs import FRAME, MASK, TOKENS, frame, words
from vlacompile.zoo.blocks.paligemma import END, SMALL, PaliGemma, PaliGemmaSizes
from vlacompile.zoo.blocks.prefix_lm import EPSILON, pixels
from vlacompile.zoo.checkpoint import Checkpoint, Places
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.exterior", "image.wrist")
HORIZON, ACTION, EXECUTED, SPECIAL, BAR = 10, 8, 8, 128, 235371  # special tokens at the vocabulary's end; the token |
LENGTH, MOST = 250, 256


class Pi0Fast(PaliGemma):
    """Frames u8 [1,side,side,3] of two cameras, ids i64 [1,L] of instruction and state with their mask -> {"tokens":
    i64 [1,256]}.

    The model has three images; in the place of a second exterior camera, openpi gives a black one, not masked.
    most: tokens at most. chosen: the only ids that may be written, or None.
    """

    def __init__(self, sizes: PaliGemmaSizes, most: int, chosen: list[int] | None):
        super().__init__(sizes)
        self.most, self.chosen = most, chosen
        self.register_buffer("black", torch.zeros(1, sizes.vision.side, sizes.vision.side, 3, dtype=torch.uint8),
                             persistent=False)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = (inputs[CAMERAS[0]], self.black, inputs[CAMERAS[1]])
        prefix = torch.cat([*(self.see(pixels(f)) for f in frames), self.embed(inputs[TOKENS])], 1)
        mask = inputs[MASK]
        images = torch.ones(1, prefix.shape[1] - mask.shape[1], dtype=torch.bool)
        return {"written": self.write(prefix, torch.cat([images, mask], 1), self.most, self.chosen, skipped=1)}


_MODEL = "model.paligemma_with_expert.paligemma."  # as LeRobot's code saves it; openpi's own is JAX


def places(module: nn.Module, files: TensorFiles) -> Places:
    """One tensor is the embedding and the head; a file has it under one of both names."""
    embedding = f"{_MODEL}model.language_model.embed_tokens.weight"
    return {n: (f"{_MODEL}model.{n}",) for n in module.state_dict()} | (
        {} if embedding in files.shapes else {"language_model.embed_tokens.weight": (f"{_MODEL}lm_head.weight",)})


def with_tokenizer(policy: Policy, found: Mapping[str, Any]) -> Policy:
    """The pieces of FAST's tokenizer and the bounds of actions, instead of stand-ins."""
    assert policy.decoder is not None
    taken = policy.decoder.steps[0]
    assert isinstance(taken, Pieces) and taken.stop is not None
    fast, low, high = read_fast(found["fast"]), found["low"], found["high"]
    if len(fast.pieces) != len(taken.pieces) or len(low) != ACTION or len(high) != ACTION:
        raise ValueError(f"{len(fast.pieces)} tokens, {len(low)} and {len(high)} bounds; the policy has "
                         f"{len(taken.pieces)}, and {ACTION} of each")
    units = from_range(low, high, epsilon=EPSILON)
    return replace(policy, decoder=fast.decoder(taken.shape, taken.first, taken.direction, taken.stop, units))


def make(variant: str, size: str) -> Policy:
    tiny = size == TINY
    sizes, most = (SMALL, 12) if tiny else (PaliGemmaSizes(), MOST)
    count, special, bar = (64, 16, 5) if tiny else (VOCABULARY, SPECIAL, BAR)
    first = sizes.language.vocabulary - 1 - special
    chosen = [END, bar, *range(first - count + 1, first + 1)] if variant == "restricted" else None
    tokens, mask = words(20 if tiny else LENGTH, sizes.language.vocabulary, 14 if tiny else 80)
    low, high = torch.linspace(-1, -0.5, ACTION).tolist(), torch.linspace(0.6, 1.2, ACTION).tolist()
    return Policy(
        "pi0_fast", Pi0Fast(sizes, most, chosen).eval(), dict.fromkeys((*CAMERAS, TOKENS, MASK), FRAME),
        {**{c: frame(sizes.vision.side) for c in CAMERAS}, TOKENS: tokens, MASK: mask}, outputs=("written",),
        decoder=stand_in(count).decoder((HORIZON, ACTION), first, -1, bar, from_range(low, high, epsilon=EPSILON)),
        execute=EXECUTED)


_PAPER = "arXiv 2501.09747"
SYSTEM = System(
    "pi0-FAST", 2025, 16, f"{_PAPER}, github.com/Physical-Intelligence/openpi 15a9616", make,
    says=(
        "DROID: any token of the vocabulary may be written",
        "DROID: only tokens that stand for actions may be written"),
    code="Apache-2.0",
    weights="Apache-2.0 and Gemma's terms", variants=("droid", "restricted"),
    checkpoint=Checkpoint(
        places=places, unread=(f"{_MODEL}lm_head.weight",), host=with_tokenizer,
        asks='"fast": "DIRECTORY of FAST\'s tokenizer", "low": [...], "high": [...]'),
    published=(
        Published("latency", 750, "ms", "a chunk of one second, RTX 4090", _PAPER),
        Published("parameters", 2.9, "B", "PaliGemma", _PAPER),
    ))
