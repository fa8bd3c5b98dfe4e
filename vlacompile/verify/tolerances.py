"""The one tolerance table. Cosine alone hides scale, max-abs alone hides it too: all three must hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    ("f32", "chunk"): Tolerance(1e-4, 1e-5, 1e-4, 0.99999),
    ("f32", "action"): Tolerance(1e-5, 1e-5, 1e-5, 0.99999),
    # What a policy gives that computes in 16 bits, beside its stages, which compute the same in f32: roundings of 2^-9
    # and 2^-12 at every op, which add up over its depth. Measured per depth in
    # tests/compiler/passes/test_legalise_types.py.
    ("bf16", "chunk"): Tolerance(1e-3, 0.1, 0.1, 0.995),
    ("f16", "chunk"): Tolerance(2e-4, 0.02, 0.02, 0.9998),
    ("exact", "stage"): Tolerance(0.0, 0.0, 0.0, 1.0),
    ("exact", "chunk"): Tolerance(0.0, 0.0, 0.0, 1.0),
}


def tolerance(dtype: str, level: str) -> Tolerance:
    return TOLERANCES[dtype if (dtype, level) in TOLERANCES else "exact", level]


# How far two right engines in reduced precision may be apart. Every quantised op is the same to the last bit
# (tests/compiler/precision/quantise/test_ops.py), but f32 in between is not, and a number that lies between two steps
# goes the other way; over many layers the two become independent roundings of one function, sqrt(2) of what the
# precision moved a value by. Where a policy is about to decide one way or the other they are further apart: as far as
# runs are with every f32 result disturbed, times DISTURBED. Of the greatest difference more, because single numbers
# decide it; and of few numbers, whose root mean square is off from the usual one by 1 / sqrt(2 n) of it: FEW standard
# deviations.
ROUNDING_SHARE, ROUNDING_PEAK, DISTURBED, FEW = 1.5, 2.5, 3.0, 4.0


def within_precision(limit: Metrics, moved: Metrics, disturbed: Metrics, numbers: int = 1 << 30) -> Metrics:
    """Limits for a value computed in reduced precision, against the compiler's own computation in it. limit: the same
    in full precision; moved: by the precision, usually or here, whichever is more (`usually`); disturbed: the worst of
    disturbed runs. numbers: how many the value is."""
    share = ROUNDING_SHARE * (1 + FEW / math.sqrt(2 * max(numbers, 1)))
    return _loosened(_loosened(limit, moved, share, max(share, ROUNDING_PEAK)), disturbed, DISTURBED, DISTURBED)


def usually(pairs: Sequence[tuple[np.ndarray, np.ndarray]], want: np.ndarray) -> Metrics:
    """What a precision does to a value beside `want`, if it does there what it did on all golden frames. Of one or two
    numbers a single frame says nothing: they may have been rounded to where they were. pairs: (in the precision, in
    full precision), a frame each."""
    every = [np.concatenate([p[i].ravel() for p in pairs]).astype(np.float64) for i in (0, 1)]
    if want.dtype.kind != "f" or not all(np.isfinite(x).all() for x in every) or not want.any():
        return Metrics(0.0, 0.0, 1.0)
    found, size = every[0] - every[1], float(np.linalg.norm(want.astype(np.float64)))
    rel = float(np.sqrt((found**2).mean() * want.size)) / size
    return Metrics(float(np.abs(found).max(initial=0.0)), rel, max(-1.0, 1 - rel**2 / 2))


def beside_policy(within: Metrics, moved: Metrics) -> Metrics:
    """Limits for the same value against the policy in full precision. within: of `within_precision`."""
    return _loosened(within, moved, 1.0, 1.0)


def _loosened(limit: Metrics, by: Metrics, share: float, peak: float) -> Metrics:
    """What adds up of a cosine is the angle, whose square is 2 (1 - cosine) where it is small: as lengths of errors
    do."""
    angle = math.sqrt(max(1 - limit.cosine, 0.0)) + share * math.sqrt(max(1 - by.cosine, 0.0))
    return Metrics(limit.max_abs + peak * by.max_abs, limit.rel_l2 + share * by.rel_l2, 1 - angle ** 2)
