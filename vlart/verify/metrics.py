"""The three parity metrics, in float64, and their limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Limit(Metrics):
    """The largest allowed metrics. columns: max_abs for each index of the last dimension, where their units differ
    (joints in radians beside a gripper in ticks); empty: max_abs holds for all elements."""

    columns: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """got, limit: max_abs is that of the column that uses the largest share of its limit; column: its index, None if
    all elements have one limit."""

    got: Metrics
    limit: Metrics
    column: int | None = None

    @property
    def passed(self) -> bool:
        return self.got.within(self.limit)

    def text(self) -> str:
        """For a message: errors and limits in the unit of the value."""
        at = "" if self.column is None else f" in column {self.column}"
        return (f"max_abs {self.got.max_abs:.3g}{at} (limit {self.limit.max_abs:.3g}), rel_l2 {self.got.rel_l2:.3g} "
                f"({self.limit.rel_l2:.3g}), cosine {self.got.cosine:.7f} ({self.limit.cosine:.7g})")


def compare(got: np.ndarray, want: np.ndarray) -> Metrics:
    """max |got - want|, ||got - want|| / ||want||, cosine. Equal tensors give (0, 0, 1), also if they are zero.
    Equal infinities count as equal (masks hold them), and NaN where PyTorch has NaN; any other non-finite element gives
    (inf, inf, -1)."""
    assert got.shape == want.shape, f"{got.shape} is compared with {want.shape}"
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    masked = _same(a, b)
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


def examine(got: np.ndarray, want: np.ndarray, limit: Metrics) -> Comparison:
    """Compares a tensor with its limit, column by column if the limit has columns."""
    metrics = compare(got, want)
    columns = np.array(limit.columns if isinstance(limit, Limit) else (), np.float64)
    if not (columns.size and np.isfinite(metrics.max_abs)):
        return Comparison(metrics, Metrics(limit.max_abs, limit.rel_l2, limit.cosine))
    errors = np.abs(differences(got, want)).reshape(-1, columns.size).max(0, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors > 0, errors / columns, 0.0)
    worst = int(shares.argmax())
    return Comparison(replace(metrics, max_abs=float(errors[worst])),
                      Metrics(float(columns[worst]), limit.rel_l2, limit.cosine), worst)


def differences(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """got - want in float64; equal infinities differ by 0, and so do NaN and NaN."""
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(_same(a, b), 0.0, a - b)


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.isinf(b) & (a == b)) | (np.isnan(a) & np.isnan(b))
