"""Messages with the fields of ROS 2's, as any of its bindings has them."""

from __future__ import annotations

from types import SimpleNamespace as Fields

import numpy as np

S, MS = 1_000_000_000, 1_000_000


def stamped(time_ns: int, **fields) -> Fields:
    stamp = Fields(sec=time_ns // S, nanosec=time_ns % S)
    return Fields(header=Fields(stamp=stamp, frame_id=""), **fields)


def image(time_ns: int, pixels: np.ndarray, encoding: str = "rgb8", **changes) -> Fields:
    """pixels: [H,W,C]."""
    height, width = pixels.shape[:2]
    packed = np.ascontiguousarray(pixels)
    fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0,
              "step": packed.nbytes // height, "data": packed.tobytes()}
    return stamped(time_ns, **(fields | changes))


def joints(time_ns: int, **positions: float) -> Fields:
    return stamped(time_ns, name=list(positions), position=list(positions.values()), velocity=[], effort=[])
