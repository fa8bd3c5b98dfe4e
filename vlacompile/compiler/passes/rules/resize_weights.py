"""The weights by which PyTorch resizes images: of each output position, which input positions it reads and how much of
each.

After ATen's native/cpu/UpSampleKernel.cpp, whose antialiased kernels and kernels of bytes compute them so (weights in
f64; of bytes, in 16 bits with as many binary places as the largest of an axis allows).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MOST_PLACES = 22  # binary places of an integer weight
_WEIGHT_LIMIT = 1 << 15


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(a: float) -> Callable[[float], float]:
    def weight(x: float) -> float:
        x = abs(x)
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0

    return weight


def _lanczos(x: float) -> float:
    if not -3 <= x < 3:
        return 0.0
    sinc = lambda t: 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)
    return sinc(x) * sinc(x / 3)


@dataclass(frozen=True)
class Kernel:
    """of: weight at a distance in input positions (of the output's, where the output is smaller and antialiased).
    reach: largest distance with a weight."""

    of: Callable[[float], float]
    reach: float
    antialias: bool


KERNELS = {
    ("bilinear", True): Kernel(_triangle, 1.0, True),
    ("bilinear", False): Kernel(_triangle, 1.0, False),
    ("bicubic", True): Kernel(_cubic(-0.5), 2.0, True),
    ("bicubic", False): Kernel(_cubic(-0.75), 2.0, False),
    ("lanczos", True): Kernel(_lanczos, 3.0, True),
}


@dataclass(frozen=True)
class Axis:
    """One axis of a resize. factor: output positions per input position, where the policy gave it."""

    size: int
    out: int
    align_corners: bool = False
    factor: float | None = None

    @property
    def is_kept(self) -> bool:
        return self.size == self.out and self.factor in (None, 0.0, 1.0)

    def _step(self) -> float:
        """Input positions per output position."""
        if self.align_corners:
            return (self.size - 1) / (self.out - 1) if self.out > 1 else 0.0
        return 1.0 / self.factor if self.factor else self.size / self.out

    def matrix(self, kernel: Kernel) -> np.ndarray:
        """f64[out,size]"""
        found, step = np.zeros((self.out, self.size)), self._step()
        for i in range(self.out):
            if kernel.antialias:
                self._window(kernel, step, step * (i + 0.5), found[i])
            else:
                self._neighbours(kernel, step * i if self.align_corners else step * (i + 0.5) - 0.5, found[i])
        return found

    def _window(self, kernel: Kernel, step: float, centre: float, row: np.ndarray) -> None:
        """Of all positions below the kernel, which is as wide as an output position."""
        wide = max(step, 1.0)
        begin = max(int(centre - kernel.reach * wide + 0.5), 0)
        end = min(int(centre + kernel.reach * wide + 0.5), self.size)
        weights = [kernel.of((k - centre + 0.5) / wide) for k in range(begin, end)]
        row[begin:end] = np.array(weights) / (sum(weights) or 1.0)

    def _neighbours(self, kernel: Kernel, place: float, row: np.ndarray) -> None:
        """Of the positions beside `place`; beyond an edge lies what lies there."""
        place = max(place, 0.0) if kernel.reach == 1.0 else place
        first = math.floor(place) + 1 - int(kernel.reach)
        for k in range(first, first + 2 * int(kernel.reach)):
            row[min(max(k, 0), self.size - 1)] += kernel.of(place - k)


@dataclass(frozen=True)
class IntegerWeights:
    """places: i64[out,taps] which positions are read. weights: i32[out,taps], in units of 2^-binary_places."""

    places: np.ndarray
    weights: np.ndarray
    binary_places: int


def integer_weights(matrix: np.ndarray) -> IntegerWeights:
    """As PyTorch rounds the weights of an axis for bytes."""
    binary_places = 0
    while binary_places < _MOST_PLACES and int(0.5 + matrix.max() * (1 << binary_places + 1)) < _WEIGHT_LIMIT:
        binary_places += 1
    scaled = matrix * (1 << binary_places)
    rounded = np.trunc(scaled + np.where(matrix < 0, -0.5, 0.5)).astype(np.int32)
    taps = max(1, int((rounded != 0).sum(1).max()))
    order = np.argsort(rounded == 0, axis=1, kind="stable")[:, :taps]  # those with a weight first, in their order
    return IntegerWeights(order, np.take_along_axis(rounded, order, 1), binary_places)
