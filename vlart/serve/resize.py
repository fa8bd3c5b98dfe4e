"""Camera frames in the policy's size, by a declared method: the one that the training's transforms used. A method is
torchvision's interpolation mode (`torchvision.transforms.v2.functional.resize`, antialiased where that applies), and
"-pad" keeps the proportions and fills the rest with black on both sides, as `pad` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vlart.errors import ConfigError, nearest
from vlart.runtime.camera import MOST_SIDE, Camera

MODES = ("bilinear", "bicubic", "nearest", "nearest-exact")
METHODS = (*MODES, *(f"{mode}-pad" for mode in MODES))
MOST_CHANNELS = 4
Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def resizer(method: str) -> Resize:
    """(u8 [H,W,C], (h,w)) -> u8 [h,w,C]. Raises ConfigError."""
    if method not in METHODS:
        raise ConfigError(f'frames cannot be resized by "{method}"', where="--resize", why=nearest(method, METHODS),
                          fix=f"choose one of {', '.join(METHODS)}")
    mode, fit = method.removesuffix("-pad"), "pad" if method.endswith("-pad") else "stretch"
    return lambda frame, size: resized(frame, size, mode, fit)


def resized(frame: np.ndarray, size: tuple[int, int], mode: str, fit: str = "stretch") -> np.ndarray:
    """u8 [H,W,C] -> u8 [h,w,C]. mode, fit: as of `Camera`."""
    if frame.shape[:2] == size:
        return frame
    return Camera("as-is", frame.shape[:2], size, resize=mode, fit=fit, channels=frame.shape[2]).convert(frame)


def can_resize(frame: Any) -> bool:
    """Whether it is a picture of bytes, of a size and with as many channels as a camera may have."""
    return isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and 0 not in frame.shape and \
        max(frame.shape) <= MOST_SIDE and frame.shape[2] <= MOST_CHANNELS
