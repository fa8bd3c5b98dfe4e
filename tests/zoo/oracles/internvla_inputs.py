"""What InternVLA-M1's original and the zoo's module are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.samples.weights_by_name import weight
from tests.zoo.oracles.recorded import grey_levels, numbers
from vlacompile.zoo.systems.internvla_m1 import ACTION, CAMERAS, HORIZON, LENGTH, SMALL, TEMPLATE

RECORDED = Path(__file__).with_name("internvla_m1.json")
IMAGE, VIDEO, BEGIN, END = 95, 96, 97, 98  # ids of a picture's tokens, and what stands before and behind it
BEFORE = torch.cat([torch.arange(TEMPLATE - 1)[None] * 3 + 2, torch.tensor([[BEGIN]])], 1)
BETWEEN = torch.tensor([[END, BEGIN]])
USED, PLACES = 40, 5  # words that count; rows and columns of the positions that DINOv2's checkpoint has
FAINT = 0.02  # of the last layer, and of the noise, which the sampler multiplies: actions would be at their bounds
NOISE = FAINT * numbers(9, 1, HORIZON, ACTION)


def weight_of(name: str, shape: Sequence[int]) -> torch.Tensor:
    return weight(name, shape) * (FAINT if ".final_layer." in name else 1.0)


def frames(seed: int) -> list[torch.Tensor]:
    return [grey_levels(10 * seed + i, 1, SMALL.side, SMALL.side, 3) for i in range(len(CAMERAS))]


def words(seed: int) -> torch.Tensor:
    """The end of the last picture first."""
    ids = torch.from_numpy(numbers(seed + 30, 1, LENGTH).numpy().argsort() % 94)
    return torch.cat([torch.tensor([[END]]), ids[:, 1:]], 1)
