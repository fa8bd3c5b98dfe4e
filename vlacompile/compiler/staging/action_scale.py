"""The unit that actions are compared in: each dimension's spread over the calibration observations.

Owns the measure that solvers and precisions are chosen by. Must not know what is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ActionScale:
    """spread: f64[D], standard deviation over all observations and steps. still: bool[D], dimensions that never
    move."""

    spread: torch.Tensor
    still: torch.Tensor

    @staticmethod
    def of(want: Sequence[torch.Tensor]) -> ActionScale:
        """Of chunks [1,H,D], one per observation."""
        b = _rows(want)
        spread = b.std(0)
        return ActionScale(spread, spread < 1e-6 * b.abs().max().clamp(min=1e-6))

    def errors(self, got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> torch.Tensor:
        """f64[D]: root mean square difference per dimension in units of its spread. Infinite where a dimension that
        never moves comes to move, or where something is not a number."""
        rms = (_rows(got) - _rows(want)).square().mean(0).sqrt()
        relative = torch.where(self.still, torch.where(rms < 1e-6, 0.0, torch.inf), rms / self.spread)
        return relative.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _rows(chunks: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(chunks)).flatten(0, -2).double()
