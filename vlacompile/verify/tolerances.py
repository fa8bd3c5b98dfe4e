"""The one tolerance table. Cosine ignores scale and max-abs alone misses it too: all three metrics must hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlacompile.verify.metrics import Metrics


@dataclass(frozen=True)
class Tolerance:
    """max_abs: in units of the value; relative_max: the same as a share of the value's largest
    magnitude (the larger of the two applies). rel_l2: ||got - want|| / ||want||. cosine: minimum."""

    max_abs: float
    relative_max: float
    rel_l2: float
    cosine: float

    def limit(self, want: np.ndarray) -> Metrics:
        """The limits for one tensor."""
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) if want.dtype.kind == "f" else 0.0
        return Metrics(max(self.max_abs, self.relative_max * scale), self.rel_l2, self.cosine)


# (dtype of the computation, level) -> tolerance. "stage": a value between stages. "chunk": a policy
# output, in robot units. "action": a popped action, against the same decoding and consumption in NumPy.
# "exact": integers and booleans.
TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("f32", "stage"): Tolerance(1e-4, 1e-4, 1e-4, 0.99999),
    ("f32", "chunk"): Tolerance(1e-4, 1e-5, 1e-4, 0.99999),
    ("f32", "action"): Tolerance(1e-5, 1e-5, 1e-5, 0.99999),
    # A policy that computes in 16 bits, against its stages, which compute the same in f32: rounding of 2^-9 and 2^-12
    # at every op, which accumulates over its depth. Measured per depth in
    # tests/compiler/passes/test_use_engine_types.py.
    ("bf16", "chunk"): Tolerance(1e-3, 0.1, 0.1, 0.995),
    ("f16", "chunk"): Tolerance(2e-4, 0.02, 0.02, 0.9998),
    ("exact", "stage"): Tolerance(0.0, 0.0, 0.0, 1.0),
    ("exact", "chunk"): Tolerance(0.0, 0.0, 0.0, 1.0),
}


def tolerance(dtype: str, level: str) -> Tolerance:
    return TOLERANCES[dtype if (dtype, level) in TOLERANCES else "exact", level]


# How far two correct engines in reduced precision may be apart. Every quantised op is bit-exact
# (tests/compiler/precision/quantise/test_ops.py), but the f32 computation in between is not, and a number halfway
# between two quantisation steps may be rounded the other way; over many layers the two become independent roundings of
# one function, sqrt(2) times the error by which the precision moved a value. Where a policy is about to switch between
# two behaviours they are further apart: as far as runs in which every f32 result is perturbed, times DISTURBED. The
# maximum error is allowed more, because single elements decide it; and so are values of few elements, whose root mean
# square deviates from its expectation by a relative 1 / sqrt(2 n): FEW standard deviations of that.
ROUNDING_SHARE, ROUNDING_PEAK, DISTURBED, FEW = 1.5, 2.5, 3.0, 4.0


def within_precision(limit: Metrics, moved: Metrics, disturbed: Metrics, numbers: int = 1 << 30) -> Metrics:
    """Limits for a value computed in reduced precision, against the compiler's own computation in that precision.
    limit: that of full precision; moved: the error of the precision, typical or on this frame, whichever is larger (see
    `usually`); disturbed: the largest error of the perturbed runs. numbers: elements of the value."""
    share = ROUNDING_SHARE * (1 + FEW / math.sqrt(2 * max(numbers, 1)))
    return _loosened(_loosened(limit, moved, share, max(share, ROUNDING_PEAK)), disturbed, DISTURBED, DISTURBED)


def usually(pairs: Sequence[tuple[np.ndarray, np.ndarray]], want: np.ndarray) -> Metrics:
    """The error of a precision on a value `want`, if it is as large as on all golden frames together. A single frame
    says nothing about a value of one or two elements: they may be rounded to themselves by chance. pairs: (in the
    precision, in full precision), one per frame."""
    every = [np.concatenate([p[i].ravel() for p in pairs]).astype(np.float64) for i in (0, 1)]
    if want.dtype.kind != "f" or not all(np.isfinite(x).all() for x in every) or not want.any():
        return Metrics(0.0, 0.0, 1.0)
    found, size = every[0] - every[1], float(np.linalg.norm(want.astype(np.float64)))
    rel = float(np.sqrt((found**2).mean() * want.size)) / size
    return Metrics(float(np.abs(found).max(initial=0.0)), rel, max(-1.0, 1 - rel**2 / 2))


def beside_policy(within: Metrics, moved: Metrics) -> Metrics:
    """Limits for the same value against the policy in full precision. within: the result of `within_precision`."""
    return _loosened(within, moved, 1.0, 1.0)


def _loosened(limit: Metrics, by: Metrics, share: float, peak: float) -> Metrics:
    """Angles add up as lengths of errors do, and not cosines: for a small angle, its square is 2 (1 - cosine)."""
    angle = math.sqrt(max(1 - limit.cosine, 0.0)) + share * math.sqrt(max(1 - by.cosine, 0.0))
    return Metrics(limit.max_abs + peak * by.max_abs, limit.rel_l2 + share * by.rel_l2, 1 - angle ** 2)
