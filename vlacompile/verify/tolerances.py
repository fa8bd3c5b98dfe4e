"""The one tolerance table. Cosine alone hides scale, max-abs alone hides it too: all three must hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlacompile.verify.metrics import Metrics


@dataclass(frozen=True)
class Tolerance:
    """max_abs: in units of the value; relative_max: the same as a share of the value's largest
    magnitude (the larger of the two holds). rel_l2: ||got - want|| / ||want||. cosine: smallest."""

    max_abs: float
    relative_max: float
    rel_l2: float
    cosine: float

    def limit(self, want: np.ndarray) -> Metrics:
        """The limits for one tensor."""
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) if want.dtype.kind == "f" else 0.0
        return Metrics(max(self.max_abs, self.relative_max * scale), self.rel_l2, self.cosine)


# (dtype of the computation, level) -> tolerance. "stage": a value between stages. "chunk": a policy
# output, in robot units. "action": what is popped, against the same decoded and consumed in NumPy.
# "exact": integers and booleans.
TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("f32", "stage"): Tolerance(1e-4, 1e-4, 1e-4, 0.99999),
    ("f32", "chunk"): Tolerance(1e-4, 0.0, 1e-4, 0.99999),
    ("f32", "action"): Tolerance(1e-5, 1e-5, 1e-5, 0.99999),
    ("exact", "stage"): Tolerance(0.0, 0.0, 0.0, 1.0),
    ("exact", "chunk"): Tolerance(0.0, 0.0, 0.0, 1.0),
}


def tolerance(dtype: str, level: str) -> Tolerance:
    return TOLERANCES[dtype if (dtype, level) in TOLERANCES else "exact", level]
