"""Normalisation of observations and its inverse for actions, as tensor functions that become part of the graph.

The formulas are LeRobot's (lerobot/processor/normalize_processor.py, 0.4.4; MIN_MAX_OR_ZERO: processor_groot.py), eps
included: a value that does not vary in the dataset must come out as it did in training.
"""

from __future__ import annotations

import torch

from vlacompile.frontends.lerobot.statistics import Normalisation
from vlacompile.policy.action_decoding import Affine


def _range(n: Normalisation) -> tuple[torch.Tensor, torch.Tensor]:
    """(low, width) of the modes that map a range to [-1, 1]."""
    low, high = n.statistics.values()
    return low, torch.where(high == low, torch.full_like(low, n.eps), high - low)


def normalise(x: torch.Tensor, n: Normalisation | None) -> torch.Tensor:
    """x: [..., d] or [..., C,H,W], in the dataset's units."""
    if n is None or n.mode == "IDENTITY":
        return x
    if n.mode == "MEAN_STD":
        return (x - n.statistics["mean"]) / (n.statistics["std"] + n.eps)
    low, width = _range(n)
    if n.mode == "MIN_MAX_OR_ZERO":  # a constant value maps to 0
        varies = width != n.eps
        return torch.where(varies, 2.0 * (x - low) / torch.where(varies, width, 1.0) - 1.0, 0.0)
    return 2.0 * (x - low) / width - 1.0


def unnormalise(x: torch.Tensor, n: Normalisation | None) -> torch.Tensor:
    """x: [..., d], the network's output -> robot units."""
    if n is None or n.mode == "IDENTITY":
        return x
    if n.mode == "MEAN_STD":
        return x * n.statistics["std"] + n.statistics["mean"]
    low, width = _range(n)
    return (x + 1.0) / 2.0 * width + low


def unnormalising(n: Normalisation | None, size: int) -> Affine:
    """`unnormalise` of vectors of this size, for actions that are decoded behind the graph."""
    at_zero, at_one = (unnormalise(torch.full((size,), x, dtype=torch.float64), n) for x in (0.0, 1.0))
    return Affine(tuple((at_one - at_zero).tolist()), tuple(at_zero.tolist()))
