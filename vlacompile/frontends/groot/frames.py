"""How GR00T N1.7 and N1.6 prepare a camera's frame: padded to a square, resized, cropped in the centre, resized again.

Three pieces of code do it, each in its own way; a checkpoint's files say which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from vlacompile.frontends.resize import Size, linear_matrix, resize

Step = Callable[[torch.Tensor], torch.Tensor]  # whole grey levels f32 [1,3,H,W]


@dataclass(frozen=True)
class Geometry:
    """library: "opencv" (albumentations), "torchvision" (NVIDIA's), "lerobot" (LeRobot's own on torch). target, crop:
    (height, width). shortest: edge to which frames are scaled. fraction: share of each side that is kept. Those that
    are None are not set in the files."""

    library: str
    target: Size | None = None
    crop: Size | None = None
    shortest: int | None = None
    fraction: float | None = None
    letterbox: bool = False

    def prepare(self, frame: torch.Tensor) -> torch.Tensor:
        """[1,3,H,W] of whole grey levels -> the same, as the policy's image processor gets it."""
        if self.letterbox:
            frame = _square(frame)
        return {"opencv": self._opencv, "torchvision": self._torchvision, "lerobot": self._lerobot}[self.library](frame)

    def _edge(self) -> int:
        assert self.shortest or self.target
        return self.shortest or self.target[0]  # type: ignore[index]

    def _share(self) -> float | None:
        if self.fraction is None and self.crop is not None and self.target is not None:
            return self.crop[0] / self.target[0]
        return self.fraction

    def _opencv(self, frame: torch.Tensor) -> torch.Tensor:
        scaled = partial(_shortest, edge=self._edge())
        return scaled(_central(scaled(frame), self._share(), int))

    def _lerobot(self, frame: torch.Tensor) -> torch.Tensor:
        if self.target is None:
            return frame
        frame = resize(frame, (self._edge(),) * 2, "bicubic")
        return resize(_central(frame, self._share(), round), self.target, "bicubic")

    def _torchvision(self, frame: torch.Tensor) -> torch.Tensor:
        assert self.target and self.crop
        frame = resize(frame, self.target, "bilinear")
        top, left = (round((n - c) / 2.0) for n, c in zip(self.target, self.crop, strict=True))
        return resize(frame[..., top: top + self.crop[0], left: left + self.crop[1]], self.target, "bilinear")


def resized_in_floats(frame: torch.Tensor, share: float, size: Size) -> torch.Tensor:
    """N1.5's: the centre of a frame, this share of its sides, is resized in floating point and rounded down. In an area
    of one grey the sums end at the whole number or just below it, and with them the grey level, by the order in which
    an engine adds: there it can be one lower or higher than the original's."""
    sides = [(n, int(n * share)) for n in frame.shape[-2:]]
    top, left = (round((n - kept) / 2.0) for n, kept in sides)
    x = frame[..., top: top + sides[0][1], left: left + sides[1][1]] / 255.0
    x = linear_matrix(sides[0][1], size[0]) @ (x @ linear_matrix(sides[1][1], size[1]).T)
    return torch.floor(x * 255.0)


def _square(x: torch.Tensor) -> torch.Tensor:
    """Black bars at both sides of the shorter edge."""
    height, width = x.shape[-2:]
    tall, wide = max(0, width - height), max(0, height - width)
    return F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2)) if tall or wide else x


def _shortest(x: torch.Tensor, edge: int) -> torch.Tensor:
    height, width = x.shape[-2:]
    if min(height, width) == edge:
        return x
    scale = edge / float(min(height, width))
    return resize(x, (max(1, round(height * scale)), max(1, round(width * scale))), "area")


def _central(x: torch.Tensor, share: float | None, whole: Callable[[float], int]) -> torch.Tensor:
    if share is None or not 0.0 < share < 1.0:
        return x
    sizes = [max(1, whole(n * share)) for n in x.shape[-2:]]
    top, left = ((n - s) // 2 for n, s in zip(x.shape[-2:], sizes, strict=True))
    return x[..., top: top + sizes[0], left: left + sizes[1]]
