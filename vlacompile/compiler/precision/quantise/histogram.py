"""A streaming histogram of magnitudes, and the clipping threshold that a calibrator derives from it.

The range is a power of two. When a larger value arrives it doubles and pairs of bins are merged, so counts are exact
integers and do not depend on the order of the values. Must not know graphs or layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

BINS = 8192
LEVELS = 127  # levels of a magnitude in symmetric int8
_CANDIDATES = 256  # thresholds that "mse" tries
_COARSE = 2048  # bins that "entropy" uses, as TensorRT does


@dataclass
class Histogram:
    """counts: int64[BINS], of |x| in equal bins over 0..end; end is 0 while all values were zero. low, high: exact."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    end: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, x: torch.Tensor) -> None:
        """x: f32, finite."""
        low, high = (float(v) for v in torch.aminmax(x))
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(abs(low), abs(high))
        if peak > 0 and peak >= self.end:
            self._reach(2.0 ** math.frexp(peak)[1])  # above the peak, as bins exclude their upper edge
        index = (x.flatten().abs().double() * (BINS / self.end if self.end else 0.0)).long().clamp_(max=BINS - 1)
        self.counts += torch.bincount(index, minlength=BINS).numpy()

    def _reach(self, end: float) -> None:
        """Doubles the range until it is `end`, merging pairs of bins each time."""
        while self.end and self.end < end:
            if not self.counts[1:].any():
                break
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.end *= 2
        self.end = end

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return max(-self.low, self.high, 0.0)

    def threshold(self, calibrator: str, percentile: float = 99.99) -> float:
        """The largest magnitude that is represented; larger ones saturate. At most the peak.

        "minmax": the peak. "percentile": the upper edge of the first bin up to which `percentile` per cent of the
        values lie. "mse": the least mean square error of rounding to LEVELS steps. "entropy": the least
        Kullback-Leibler divergence between the distributions before and after rounding (Migacz, "8-bit Inference with
        TensorRT", GTC 2017).
        """
        if self.peak == 0.0:
            return 0.0
        found = {"minmax": lambda: self.peak, "percentile": lambda: self._percentile(percentile), "mse": self._mse,
                 "entropy": self._entropy}[calibrator]()
        return min(found, self.peak)

    def _percentile(self, percentile: float) -> float:
        reached = np.cumsum(self.counts)
        wanted = math.ceil(percentile / 100 * int(reached[-1]))
        return (int(np.searchsorted(reached, wanted)) + 1) * self.end / BINS

    def _mse(self) -> float:
        used = np.flatnonzero(self.counts)
        centres, counts = (used + 0.5) * self.end / BINS, self.counts[used].astype(np.float64)
        candidates = self.peak * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
        errors = []
        for peak in candidates:
            scale = peak / LEVELS
            rounded = np.minimum(np.rint(centres / scale), LEVELS) * scale
            errors.append(float(((rounded - centres) ** 2 * counts).sum()))
        return float(candidates[int(np.argmin(errors))])

    def _entropy(self) -> float:
        """Ignores zeros: they are exact in any range, and behind a ReLU they outnumber all other values."""
        counts = self.counts.reshape(_COARSE, -1).sum(1).astype(np.float64)
        counts[0] = counts[1]
        last = min(int(self.peak / self.end * _COARSE) + 1, _COARSE)
        levels = LEVELS + 1
        best, found = math.inf, last
        for i in range(min(levels, last), last + 1):
            divergence = _divergence(counts[:i], float(counts[i:].sum()), levels)
            if divergence <= best:
                best, found = divergence, i
        return found * self.end / _COARSE


def _divergence(kept: np.ndarray, clipped: float, levels: int) -> float:
    """KL(P || Q). P: the kept bins, with clipped values added to the last one. Q: the kept bins only, merged into
    `levels` groups, each spread evenly over its bins that are not empty."""
    starts = (np.arange(levels) * len(kept)) // levels
    mass, filled = np.add.reduceat(kept, starts), np.add.reduceat((kept > 0).astype(np.float64), starts)
    level = np.searchsorted(starts, np.arange(len(kept)), side="right") - 1
    p = kept.copy()
    p[-1] += clipped
    q = np.where(kept > 0, (mass / np.maximum(filled, 1))[level], 0.0)
    if p.sum() == 0 or q.sum() == 0:
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    if np.any((p > 0) & (q == 0)):
        return math.inf
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())
