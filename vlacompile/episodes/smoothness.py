"""How smooth executed actions are: their jerk, and how far they jump where a new chunk begins.

A policy whose chunks differ little from the original's in every number can still shake a robot: a motor feels the
differences of successive actions. Per dimension, in units of the action's spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Smoothness:
    """jerk: root mean square of the third difference over time, spreads/s^3. jump: mean step into the first action of a
    chunk, apart from the first chunk of an episode; step: mean of all other steps; spreads. None: there is none."""

    jerk: float | None
    jump: float | None
    step: float | None

    @staticmethod
    def of(actions: Sequence[np.ndarray], replans: Sequence[tuple[int, ...]], spread: float, fps: float) -> Smoothness:
        """actions: f64[frames] of one dimension for each episode, NaN where there is none. replans: frames at which a
        chunk begins."""
        unit = spread if spread > 0 else 1.0
        third = np.concatenate([np.diff(a, 3) for a in actions]) * fps**3 / unit
        steps = [np.abs(np.diff(a)) / unit for a in actions]
        begins = [np.isin(np.arange(1, len(s) + 1), r) for s, r in zip(steps, replans, strict=True)]
        into, within = (np.concatenate([s[b == kind] for s, b in zip(steps, begins, strict=True)])
                        for kind in (True, False))
        third = third[np.isfinite(third)]
        return Smoothness(float(np.sqrt(np.mean(third**2))) if third.size else None, _mean(into), _mean(within))


def _mean(steps: np.ndarray) -> float | None:
    known = steps[np.isfinite(steps)]
    return float(known.mean()) if known.size else None
