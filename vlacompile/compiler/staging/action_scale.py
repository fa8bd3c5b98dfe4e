"""The unit of action errors: each action dimension's standard deviation over the calibration observations.

Owns the error measure by which solvers and precisions are chosen. Must not know the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ActionScale:
    """spread: f64[D], standard deviation over all observations and steps. still: bool[D], dimensions that are
    constant over them."""

    spread: torch.Tensor
    still: torch.Tensor

    @staticmethod
    def of(want: Sequence[torch.Tensor]) -> ActionScale:
        """want: the reference chunks [1,H,D], one per observation."""
        b = _rows(want)
        spread = b.std(0)
        return ActionScale(spread, spread < 1e-6 * b.abs().max().clamp(min=1e-6))

    def errors(self, got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> torch.Tensor:
        """f64[D]: root mean square error per dimension, in units of its spread. Infinite if a dimension that is
        constant in the reference varies, or if a value is NaN or infinite."""
        rms = (_rows(got) - _rows(want)).square().mean(0).sqrt()
        relative = torch.where(self.still, torch.where(rms < 1e-6, 0.0, torch.inf), rms / self.spread)
        return relative.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _rows(chunks: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(chunks)).flatten(0, -2).double()
