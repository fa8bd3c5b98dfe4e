"""The unit of action errors: each action dimension's standard deviation over the calibration observations.

Owns the error measure by which solvers and precisions are chosen. Must not know the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

STILL = 1e-6  # spread of a dimension that is constant but for rounding, as a share of its magnitude
OF_MAGNITUDE = 0.1  # what such a dimension's errors count in


@dataclass(frozen=True)
class ActionScale:
    """spread: f64[D], in what errors of each action dimension count: its standard deviation over all observations and
    steps. Of a dimension that is constant over them a tenth of its magnitude, of one that is always zero the largest
    spread of the others."""

    spread: torch.Tensor

    @staticmethod
    def of(want: Sequence[torch.Tensor]) -> ActionScale:
        """want: the reference chunks [1,H,D], one per observation; also actions [1,D] or [D] without steps."""
        b = _rows(want)
        spread, magnitude = b.std(0), b.abs().amax(0)
        spread = torch.where(spread > STILL * magnitude, spread, OF_MAGNITUDE * magnitude)
        return ActionScale(torch.where(spread > 0, spread, spread.max()))

    def errors(self, got: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> torch.Tensor:
        """f64[D]: root mean square error per dimension, in units of its spread. Infinite if a value is NaN or infinite,
        or differs from a reference that is zero throughout."""
        rms = (_rows(got) - _rows(want)).square().mean(0).sqrt()
        return torch.where(rms == 0, 0.0, rms / self.spread).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _rows(chunks: Sequence[torch.Tensor]) -> torch.Tensor:
    """f64[N,D]. A single action, or a scalar as [1], is one row."""
    return torch.cat([c.reshape(-1, c.shape[-1] if c.dim() else 1) for c in chunks]).double()
