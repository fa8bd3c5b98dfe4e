"""What LAPA's original and the zoo's module are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.zoo.oracles.recorded import grey_levels, numbers
from vlacompile.zoo.systems.lapa import PROMPT, SMALL

RECORDED = Path(__file__).with_name("lapa.json")
SIZES, SEEDS = replace(SMALL, bins=24), range(3)


def given(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(frame, ids of the prompt, their mask); a frame of large areas, whose codes differ"""
    side = SIZES.vision.side
    frame = grey_levels(seed, 1, 4, 4, 3).repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)
    mask = torch.arange(PROMPT)[None] >= PROMPT - 20 - seed
    ids = torch.from_numpy(numbers(seed + 70, 1, PROMPT).numpy().argsort() % 99 + 1)
    return frame, torch.where(mask, ids, 0), mask
