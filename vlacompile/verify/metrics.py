"""The three parity metrics, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metrics:
    max_abs: float
    rel_l2: float
    cosine: float

    def within(self, limit: Metrics) -> bool:
        """False for NaN: every comparison with NaN is false."""
        return self.max_abs <= limit.max_abs and self.rel_l2 <= limit.rel_l2 and self.cosine >= limit.cosine

    def worst(self, other: Metrics) -> Metrics:
        return Metrics(max(self.max_abs, other.max_abs), max(self.rel_l2, other.rel_l2),
                       min(self.cosine, other.cosine))


def compare(got: np.ndarray, want: np.ndarray) -> Metrics:
    """max |got - want|, ||got - want|| / ||want||, cosine. Equal tensors give (0, 0, 1), also if they are zero.
    Equal infinities count as equal (masks hold them); any other non-finite element gives
    (inf, inf, -1)."""
    assert got.shape == want.shape, f"{got.shape} is compared with {want.shape}"
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    masked = np.isinf(b) & (a == b)
    a, b = a[~masked], b[~masked]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Metrics(np.inf, np.inf, -1.0)
    difference = float(np.linalg.norm(a - b))
    if difference == 0:  # avoids rounding errors in the cosine's sums
        return Metrics(0.0, 0.0, 1.0)
    na, nb = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    rel = difference / nb if nb > 0 else np.inf
    cosine = float(a @ b / (na * nb)) if na > 0 and nb > 0 else 0.0
    return Metrics(float(np.abs(a - b).max(initial=0.0)), rel, min(1.0, cosine))
