"""`Camera`: a camera's frames as a policy takes them, by libvlart (vlart_camera.h), with the same bytes as in C."""

from __future__ import annotations

import ctypes as c
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlart.errors import ConfigError, nearest
from vlart.runtime.library import CameraFrame, CameraOptions, Diag, check, libvlart, whole
from vlart.runtime.open_bundle import path_bytes

PIXELS = ("rgb8", "bgr8", "rgba8", "bgra8", "gray8", "yuyv", "uyvy", "nv12", "nv21", "i420", "jpeg", "as-is")
WHOLE = ("rgb8", "bgr8", "rgba8", "bgra8", "as-is")  # an array [H,W,C] is a picture
COLOURS = ("bt601", "bt601-full", "bt709", "bt709-full")
RESIZES = ("none", "bilinear", "bicubic", "nearest", "nearest-exact", "bilinear-plain")
FITS = ("stretch", "pad")
MOST_SIDE = 16384  # VLART_MAX_CAMERA_SIDE
MOST_PLANES = 3  # VLART_MAX_PLANES

Size = tuple[int, int]


class Camera:
    """One way from a camera's frame to the policy's picture.

    pixels: how a frame's bytes stand, one of PIXELS. size: (height, width) of the frames, pixels. out: that of the
    policy's source. resize: torchvision's interpolation mode, antialiased where that applies ("bilinear-plain" is
    not); "none": sizes are equal. fit: "pad" keeps the proportions and fills the rest with black on both sides. crop:
    (top, left, height, width) that is looked at, before it is resized; None: the whole frame. colours: what luma and
    chroma mean. channels: of "as-is", 1 to 4. jpeg_library: path of libturbojpeg.so.0; None: the loader's.

    Belongs to one thread at a time. Raises ConfigError for a name that is none, and RuntimeFailure with libvlart's
    message.
    """

    def __init__(self, pixels: str, size: Size, out: Size, *, resize: str = "none", fit: str = "stretch",
                 crop: tuple[int, int, int, int] | None = None, colours: str = "bt601", channels: int = 0,
                 jpeg_library: str | Path | None = None):
        top, left, height, width = (0, 0, 0, 0) if crop is None else _numbers("crop", crop, 4)
        self._library, self._diag, camera, room = libvlart(), Diag(), c.c_void_p(), c.c_size_t()
        (rows, columns), (high, wide) = _numbers("size", size, 2), _numbers("out", out, 2)
        size, out = (rows, columns), (high, wide)
        self.pixels, self.size = pixels, size
        self.out = (*out, channels or 3)
        options = CameraOptions(
            pixels=_number("pixels", pixels, PIXELS), colours=_number("colours", colours, COLOURS), width=size[1],
            height=size[0], crop_x=left, crop_y=top, crop_width=width, crop_height=height,
            resize=_number("resize", resize, RESIZES), fit=_number("fit", fit, FITS), out_width=out[1],
            out_height=out[0], channels=channels,
            jpeg_library=None if jpeg_library is None else path_bytes("libturbojpeg", jpeg_library))
        self._check(self._library.vlart_camera_required_bytes(c.byref(options), c.byref(self._diag), c.byref(room)))
        self._arena = c.create_string_buffer(room.value)
        self._check(self._library.vlart_camera_init(c.byref(options), self._arena, room.value, c.byref(self._diag),
                                                    c.byref(camera)))
        self._camera = camera

    def convert(self, frame: Any, strides: Sequence[int] = (0, 0, 0)) -> np.ndarray:
        """-> u8 [height,width,channels]. frame: bytes, an array of them, or a tuple of such planes; the planes of a
        single one follow each other. strides: bytes from a row of each plane to its next one; 0: dense. Raises
        ConfigError for what holds no bytes, and for an array whose rows are not the camera's."""
        if not self._camera:
            raise ConfigError("the camera is closed", where=f"a camera of {self._words}", why="close() was called",
                              fix="make another Camera")
        planes = frame if isinstance(frame, tuple) else (frame,)
        if len(planes) > MOST_PLANES:
            raise self._misfit(f"it has {len(planes)} planes")
        steps = [*_numbers("strides", strides, None, c.c_size_t), *[0] * MOST_PLANES]
        given = [self._bytes_of(p, i, steps[i]) for i, p in enumerate(planes)]
        if len(given) == 1:
            given = self._taken_apart(given[0], steps)
        sent = CameraFrame()
        for i, plane in enumerate(given):
            sent.planes[i], sent.bytes[i], sent.strides[i] = plane.ctypes.data, plane.nbytes, steps[i]
        out = np.empty(self.out, np.uint8)
        self._check(self._library.vlart_camera_convert(self._camera, c.byref(sent), out.ctypes.data, out.nbytes,
                                                       c.byref(self._diag)))
        return out

    def _bytes_of(self, plane: Any, index: int, stride: int) -> np.ndarray:
        """u8 [n]. An array of rows must have the camera's."""
        if not isinstance(plane, np.ndarray):
            try:
                return np.frombuffer(plane, np.uint8)
            except (TypeError, ValueError, BufferError) as error:
                raise self._misfit(str(error)) from error
        row, whole = self._row_bytes()[min(index, 2)], self.pixels in WHOLE and plane.ndim == 3
        if plane.dtype != np.uint8 or plane.ndim == 0 or (whole and plane.shape != self._whole()) or (
                plane.ndim > 1 and math.prod(plane.shape[1:]) != (stride or row)):
            raise self._misfit(f"it is {plane.dtype}{list(plane.shape)}")
        return np.ascontiguousarray(plane).reshape(-1)

    def _misfit(self, why: str) -> ConfigError:
        return ConfigError("the frame is not what the camera gives", where=f"a camera of {self._words}", why=why,
                           fix="give the bytes of one frame")

    def _whole(self) -> tuple[int, int, int]:
        """The shape of a picture."""
        return (*self.size, self.out[2] if self.pixels == "as-is" else 4 if "a" in self.pixels else 3)

    def _row_bytes(self) -> tuple[int, int, int]:
        """Of each plane, dense; those that there are not have none."""
        width, half = self.size[1], (self.size[1] + 1) // 2
        return {"nv12": (width, 2 * half, 0), "nv21": (width, 2 * half, 0), "i420": (width, half, half),
                "gray8": (width, 0, 0), "yuyv": (4 * half, 0, 0), "uyvy": (4 * half, 0, 0), "jpeg": (0, 0, 0)}.get(
                    self.pixels, (width * self._whole()[2], 0, 0))

    def _taken_apart(self, data: np.ndarray, strides: Sequence[int]) -> list[np.ndarray]:
        height, planes, begin = self.size[0], [], 0
        rows = [row for row in self._row_bytes() if row]
        for i, dense in enumerate(rows[:-1]):
            length = (strides[i] or dense) * (height if i == 0 else (height + 1) // 2)
            planes.append(data[begin: begin + length])
            begin += length
        return [*planes, data[begin:]]

    def close(self) -> None:
        """Twice is allowed."""
        camera = getattr(self, "_camera", None)
        self._camera = c.c_void_p()
        if camera:
            self._library.vlart_camera_close(camera)

    def __del__(self) -> None:
        self.close()

    def _check(self, status: int) -> None:
        check(status, self._diag, f"a camera of {self._words}")

    @property
    def _words(self) -> str:
        return f"{self.size[1]} x {self.size[0]} pixels, {self.pixels}"


def _numbers(what: str, given: Any, count: int | None, kind: Any = c.c_uint32) -> tuple[int, ...]:
    """Whole numbers of a type of ctypes; count: how many, None: at most MOST_PLANES. Raises ConfigError."""
    some = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not some or not (len(given) <= MOST_PLANES if count is None else len(given) == count):
        raise ConfigError(f"{what} is {given!r}", where="Camera",
                          why=f"{f'at most {MOST_PLANES}' if count is None else count} whole numbers are taken",
                          fix="give them as a tuple")
    return tuple(whole(what, n, kind) for n in given)


def _number(what: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise ConfigError(f'{what} is "{name}"', where="Camera", why=nearest(name, known),
                          fix=f"choose one of {', '.join(known)}")
    return known.index(name)
