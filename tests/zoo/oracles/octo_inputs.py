"""What Octo's original and the zoo's module are given, and weights by the names of the original's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.zoo.oracles.recorded import grey_levels, numbers, weight_of_flax
from vlacompile.zoo.systems.octo import ACTION, HORIZON, LENGTH, SMALL, STEPS

RECORDED = Path(__file__).with_name("octo.json")
FRAMES = {name: grey_levels(i, 1, 2, side, side, 3)
          for i, (name, side) in enumerate(zip(("primary", "wrist"), SMALL["small"].sides, strict=True))}
TOKENS = torch.arange(LENGTH)[None] * 5 + 3
MASK = torch.arange(LENGTH)[None] < 9
FAINT = 0.004  # of the noise and its prediction, which the sampler multiplies by hundreds: actions would be at bounds
NOISE, ADDED = FAINT / 4 * numbers(5, 1, HORIZON * ACTION), 0.05 * numbers(6, STEPS, HORIZON * ACTION)
CASES = ([True, True], [False, True])  # which of the two frames there are


def weight_of_jax(name: str, shape: Sequence[int]) -> torch.Tensor:
    drawn = weight_of_flax(name, shape)
    return FAINT * drawn if "reverse_network.Dense_1" in name else drawn
