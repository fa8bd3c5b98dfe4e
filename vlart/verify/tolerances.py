"""The one rule for limits: errors count in the unit of the value.

Per column (an index of the last dimension of an output; a value between stages is one column):

    max_abs <= share x reach  +  STEPS x eps x magnitude  +  SIGMAS x rounding

`reach` is how far the column's numbers lie from their mean over the golden frames, so that ticks around 2048 and
radians around 0 are held to the same share of what they do. The other terms are what the arithmetic cannot resolve:
`eps` of the dtype at the column's magnitude (for an output in 16 bits at least at the smallest number that has all
digits), and the error that rounding of every result on the way was seen to cause.
rel_l2 follows from the same terms with the standard deviation in place of the reach, relative to ||want||; cosine from
rel_l2. All three metrics must hold: cosine ignores scale, and max-abs alone misses it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlart.verify.metrics import Limit, differences

STEPS = 4.0  # roundings of eps at the value's own magnitude: un-normalisation, and another order of summation
SIGMAS = 8.0  # rounding errors that are allowed, in root mean squares of what perturbed runs show
SMALL_STEP = 0.05  # as a share of a value's reach: from some twenty numbers on, another one is a neighbour
COLUMNS = 512  # outputs with longer rows are images or maps, which have one unit
POOLED = 0.5  # a column's own errors are a small sample: at least this share of what most columns show in their units


@dataclass(frozen=True)
class Tolerance:
    """share: largest error as a share of the value's reach. rel_l2: ||got - want|| as a share of the spread's length.
    cosine: minimum. eps: largest relative error of one rounding in the dtype of the computation. smallest: the number
    below which that error stays as large as there, because digits are lost."""

    share: float
    rel_l2: float
    cosine: float
    eps: float
    smallest: float = 0.0

    def limit(self, want: np.ndarray, scale: Scale | None = None) -> Limit:
        """The limits for one tensor. scale: None if no other frame is known; then errors count relative to `want`."""
        if want.dtype.kind not in "fV" or not want.size:
            return Limit(0.0, 0.0, 1.0)
        scale = Scale.alone(want) if scale is None else scale.beside(want)
        unresolved = STEPS * self.eps * np.maximum(scale.magnitude, self.smallest) + SIGMAS * scale.rounding
        most = self.share * scale.reach + unresolved
        allowed = np.broadcast_to(self.rel_l2 * scale.spread + unresolved, (want.size // len(most), len(most)))
        size = _length(want)
        rel = _relative(float(np.linalg.norm(allowed)), size)
        return Limit(float(most.max()), rel, cosine_of(rel, self.cosine), tuple(most.tolist()) if len(most) > 1 else ())


F32, F16, BF16 = 2.0 ** -24, 2.0 ** -11, 2.0 ** -8
EXACT = Tolerance(0.0, 0.0, 1.0, 0.0)

# (dtype of the computation, level) -> tolerance. "stage": a value between stages. "chunk": a policy output. "action": a
# popped action, against the same decoding and consumption in NumPy; both compute in f64. Integers and booleans are
# exact, but where rounding decides them (`beside_steps`).
TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("f32", "stage"): Tolerance(1e-4, 1e-4, 0.99999, F32),
    ("f32", "chunk"): Tolerance(1e-4, 1e-4, 0.99999, F32),
    ("f32", "action"): Tolerance(1e-6, 1e-6, 0.99999, F32),
    # A policy that computes in 16 bits, against its stages, which compute the same in f32: rounding of 2^-9 and 2^-12
    # at every op, which accumulates over its depth. Measured per depth in
    # tests/compiler/passes/test_use_engine_types.py.
    ("bf16", "chunk"): Tolerance(0.1, 0.1, 0.995, BF16),
    ("f16", "chunk"): Tolerance(0.02, 0.02, 0.9998, F16),
}


def tolerance(dtype: str, level: str) -> Tolerance:
    """dtype: in which the value is computed. Engines compute f64 in f32 or better."""
    if dtype in ("f64", "f32", "f16", "bf16"):
        return TOLERANCES.get((dtype, level), TOLERANCES["f32", level])
    return EXACT


@dataclass(frozen=True)
class Scale:
    """What errors of a value are measured by, f64[columns]. center: mean of its numbers. spread: their standard
    deviation. reach: the largest distance from the center. magnitude: the largest absolute value. rounding: root mean
    square of the error that f32 rounding of every result causes."""

    center: np.ndarray
    spread: np.ndarray
    reach: np.ndarray
    magnitude: np.ndarray
    rounding: np.ndarray

    @staticmethod
    def of(arrays: Sequence[np.ndarray], columns: int = 1) -> Scale:
        """arrays: the value on several frames. A column without numbers that differ takes the reach of all."""
        rows = np.concatenate([_rows(a, columns) for a in arrays])
        if len(rows) < 2:
            return Scale.alone(arrays[0], columns)
        center = np.array([_finite(c).mean() if _finite(c).size else 0.0 for c in rows.T])
        away = np.where(np.isfinite(rows), rows - center, 0.0)
        found = Scale(center, np.sqrt((away**2).mean(0)), np.abs(away).max(0), _largest(rows), np.zeros(columns))
        silent = (found.reach == 0) & (found.magnitude == 0)
        return replace(found, spread=np.where(silent, found.spread.max(), found.spread),
                       reach=np.where(silent, found.reach.max(), found.reach))

    @staticmethod
    def alone(want: np.ndarray, columns: int = 1) -> Scale:
        """Of a single tensor: nothing says what part of it is an offset."""
        rows = _rows(want, columns)
        largest, zeros = _largest(rows), np.zeros(columns)
        rms = np.sqrt((np.where(np.isfinite(rows), rows, 0.0) ** 2).mean(0))
        return Scale(zeros, rms, largest, largest, zeros)

    def beside(self, want: np.ndarray) -> Scale:
        """Also of a frame that reaches further, as frames of edges do."""
        rows = _rows(want, len(self.center))
        away = np.where(np.isfinite(rows), rows - self.center, 0.0)
        return replace(self, spread=np.maximum(self.spread, np.sqrt((away**2).mean(0))),
                       reach=np.maximum(self.reach, np.abs(away).max(0)),
                       magnitude=np.maximum(self.magnitude, _largest(rows)))

    def rounded(self, errors: Sequence[Seen]) -> Scale:
        """errors: the change of the value in perturbed runs, per run and frame."""
        return replace(self, rounding=np.maximum(self.rounding, self.typical(errors)))

    def typical(self, errors: Sequence[Seen]) -> np.ndarray:
        """Root mean square per column. An error of one number may be zero by chance, but not those of all columns."""
        if not errors:
            return np.zeros(len(self.center))
        own = np.sqrt(np.sum([e.squares for e in errors], 0) / max(sum(e.rows for e in errors), 1))
        shares = own[self.reach > 0] / self.reach[self.reach > 0]
        return np.maximum(own, POOLED * float(np.median(shares)) * self.reach if shares.size else 0.0)


@dataclass(frozen=True)
class Seen:
    """Errors of a tensor: their squares summed, and the largest magnitude, f64[columns]; how many each column has."""

    squares: np.ndarray
    largest: np.ndarray
    rows: int

    @staticmethod
    def of(got: np.ndarray, want: np.ndarray, columns: int) -> Seen:
        rows = _rows(differences(got, want), columns)
        return Seen((np.where(np.isfinite(rows), rows, 0.0) ** 2).sum(0), _largest(rows), len(rows))


# How far two correct engines in reduced precision may be apart. Every quantised op is bit-exact
# (tests/compiler/precision/quantise/test_ops.py), but the computation in between is not, and a number halfway between
# two steps may be rounded the other way. Two estimates, of which the larger counts. Runs that round every reduced
# result anew show it directly, with draws of their own, so that an error that is zero by chance is not taken for the
# rule: an engine's rms error was 0.4 to 0.6 of theirs on 11 random fp16 flows. What the precision itself moved a value
# by, times sqrt(2), is the distance of two independent roundings, which an engine that quantises at other places makes.
# An error is allowed CHANCE standard deviations, and the largest of n errors what is as rare, or LARGER times the
# largest that was seen: a rounding is relative to its element, so that large elements have errors of their own. A norm
# of n errors deviates by a relative 1 / sqrt(2 n) from its expectation, but errors of a chunk are correlated, so that
# the norm of perturbed runs counts as a single number.
ROUNDING_SHARE, CHANCE, LARGER = 1.5, 4.0, 2.0


def within_precision(limit: Limit, scale: Scale, mine: np.ndarray, moved: Errors, apart: Errors) -> Limit:
    """Limits for a value computed in reduced precision, against the compiler's own computation in that precision.
    limit: that of full precision. mine: that computation. moved: errors of the precision. apart: differences of runs
    that round anew."""
    n, columns = max(mine.size, 1), len(scale.center)
    moved_rms, apart_rms = moved.of(scale), apart.of(scale)
    peak = math.sqrt(CHANCE**2 + 2 * math.log(n))
    allowed = [peak * math.sqrt(2) * moved_rms, peak * apart_rms, LARGER * apart.largest(columns)]
    most = _column_limits(limit, columns) + np.max(allowed, 0)
    share = ROUNDING_SHARE * (1 + CHANCE / math.sqrt(2 * n))
    length = max(share * _joint(moved_rms, n), CHANCE * _joint(apart_rms, n))
    return _limit(most, limit, length, mine)


def beside_policy(within: Limit, scale: Scale, want: np.ndarray, moved: Errors) -> Limit:
    """Limits for the same value against the policy in full precision. within: the result of `within_precision`. want:
    the policy's value."""
    n, columns = max(want.size, 1), len(scale.center)
    rms = moved.of(scale)
    most = _column_limits(within, columns) + np.maximum(moved.largest(columns), rms)
    return _limit(most, within, _joint(rms, n), want)


def is_small(steps: np.ndarray, reach: np.ndarray) -> bool:
    """Whether other numbers are neighbours, and not other choices."""
    return bool((steps <= SMALL_STEP * reach).all())


def beside_steps(limit: Limit, want: np.ndarray, again: Sequence[np.ndarray], smooth: np.ndarray,
                 reach: np.ndarray) -> Limit:
    """Limits for a value behind small steps, such as a number rounded to ticks, which a correct engine may round
    otherwise where it is near. limit: those where it does not, and where the steps are large: another token, the other
    branch. again: the value with larger rounding errors than an engine makes. smooth, f64[columns]: the largest change
    that these errors cause without a step. reach, f64[columns]: how far the value's numbers lie from their mean."""
    columns = len(limit.columns) or 1
    moved = [_rows(differences(a, want), columns) for a in again]
    largest = np.max([np.zeros(columns), *map(_largest, moved)], 0)
    if not (largest > smooth).any() or not is_small(largest, reach):
        return limit
    usual = TOLERANCES["f32", "stage"]
    most = _column_limits(limit, columns) + largest
    rel = limit.rel_l2 + usual.rel_l2 + _relative(max(map(_length, moved)), _length(want))
    return Limit(float(most.max()), rel, cosine_of(rel, min(usual.cosine, limit.cosine)),
                 tuple(most.tolist()) if columns > 1 else ())


@dataclass(frozen=True)
class Errors:
    """Of one value. here: on the frame in question, per run. usual: on all frames that are no edges: a single frame
    says nothing about a value of one or two elements, they may be rounded to themselves by chance."""

    here: Sequence[Seen]
    usual: Sequence[Seen]

    def of(self, scale: Scale) -> np.ndarray:
        """Root mean squares f64[columns], here or usually, whichever is larger."""
        return np.maximum(scale.typical(self.here), scale.typical(self.usual))

    def largest(self, columns: int) -> np.ndarray:
        """f64[columns], here or usually."""
        return np.max([np.zeros(columns), *(e.largest for e in (*self.here, *self.usual))], 0)


def _joint(rms: np.ndarray, numbers: int) -> float:
    """The length of a vector of so many errors, which are divided evenly among the columns."""
    return math.sqrt(float((rms**2).mean()) * numbers)


def _column_limits(limit: Limit, columns: int) -> np.ndarray:
    return np.array(limit.columns or (limit.max_abs,) * columns)


def _limit(most: np.ndarray, limit: Limit, length: float, want: np.ndarray) -> Limit:
    """length: what the limit of rel_l2 is loosened by, in the unit of the value."""
    size = _length(want)
    rel = limit.rel_l2 + _relative(length, size)
    return Limit(float(most.max()), rel, cosine_of(rel, limit.cosine),
                 tuple(most.tolist()) if len(most) > 1 else ())


def _relative(length: float, size: float) -> float:
    return length / size if size > 0 else math.inf if length > 0 else 0.0


def cosine_of(rel: float, most: float) -> float:
    """The cosine that an error of relative length `rel` can lead to; `most` if that is smaller."""
    return min(most, math.sqrt(1 - rel * rel)) if rel < 1 else -1.0


def columns_of(shape: Sequence[int], output: bool) -> int:
    """How many columns with units of their own a value has. output: of the policy."""
    return shape[-1] if output and len(shape) > 0 and 0 < shape[-1] <= COLUMNS else 1


def _rows(array: np.ndarray, columns: int) -> np.ndarray:
    return array.astype(np.float64).reshape(-1, columns)


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _largest(rows: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(rows), np.abs(rows), 0.0).max(0, initial=0.0)


def _length(x: np.ndarray) -> float:
    return float(np.linalg.norm(_finite(x.astype(np.float64))))
