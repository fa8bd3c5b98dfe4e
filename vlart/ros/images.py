"""Pixels of sensor_msgs Image and CompressedImage -> arrays [H,W,C].

Owns encodings, strides and byte order, as sensor_msgs/image_encodings.hpp names them. Colours come out as red, green,
blue. What would have to be guessed (Bayer patterns, depth in a compressed image) is refused. Must not know policies.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

from vlart.errors import ConfigError, RuntimeFailure, nearest
from vlart.runtime.camera import Camera
from vlart.serve.refusal import Refusal

Size = tuple[int, int]  # height, width
MOST_PIXELS = 1 << 25  # of a compressed image, before it is unpacked: 8K
# What Pillow raises of bytes that are no image, or a damaged one.
UNPACKING = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError, struct.error,
             zlib.error)
# {encoding: (NumPy type without byte order, channels, those of them that are red, green and blue; none: as they are)}
PIXELS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "rgb8": ("u1", 3, ()), "bgr8": ("u1", 3, (2, 1, 0)), "rgba8": ("u1", 4, (0, 1, 2)), "bgra8": ("u1", 4, (2, 1, 0)),
    "rgb16": ("u2", 3, ()), "bgr16": ("u2", 3, (2, 1, 0)), "rgba16": ("u2", 4, (0, 1, 2)),
    "bgra16": ("u2", 4, (2, 1, 0)), "mono8": ("u1", 1, ()), "mono16": ("u2", 1, ()), "8UC1": ("u1", 1, ()),
    "8UC3": ("u1", 3, ()), "16UC1": ("u2", 1, ()), "32FC1": ("f4", 1, ()),
}
# {encoding: (its name of a `Camera`, bytes a row and pixel, rows a pixel row)}
LUMA_AND_CHROMA = {"yuv422": ("uyvy", 2, 1.0), "uyvy": ("uyvy", 2, 1.0), "yuv422_yuy2": ("yuyv", 2, 1.0),
                   "yuyv": ("yuyv", 2, 1.0), "nv21": ("nv21", 1, 1.5)}
COLOURS_UNSAID = ("8UC3",)


def image(message: Any, channels: str | None = None) -> np.ndarray:
    """A sensor_msgs Image [H,W,C], C of 1 or 3: 8 and 16 bits unsigned, or f32. channels: "rgb" or "bgr", of an
    encoding that does not say it. Raises Refusal."""
    encoding, height, width, step = message.encoding, int(message.height), int(message.width), int(message.step)
    data = pixel_bytes(message.data)
    if encoding in LUMA_AND_CHROMA:
        pixels, count, rows = LUMA_AND_CHROMA[encoding]
        _require_size(encoding, height, width, step, count, data.size, int(rows * height))
        return _coloured(pixels, height, width, data, step)
    if encoding not in PIXELS:
        raise _unknown(encoding)
    kind, count, order = PIXELS[encoding]
    if encoding in COLOURS_UNSAID:
        if channels is None:
            raise Refusal(f'an image of encoding "{encoding}"', where="encoding", why="it does not say which channel "
                          "is red", fix="say `channels: rgb` or `channels: bgr` of the topic")
        order = (2, 1, 0) if channels == "bgr" else ()
    item = np.dtype(("<", ">")[bool(message.is_bigendian)] + kind)
    row = width * count * item.itemsize
    _require_size(encoding, height, width, step, count * item.itemsize, data.size, height)
    found = np.ascontiguousarray(data.reshape(height, step)[:, :row]).view(item).reshape(height, width, count)
    return np.ascontiguousarray(found[..., order] if order else found, item.newbyteorder("="))


def _require_size(encoding: str, height: int, width: int, step: int, pixel_size: int, data_bytes: int,
                  rows: int) -> None:
    if height < 1 or width < 1 or step < width * pixel_size or step * rows != data_bytes:
        raise Refusal(f"an image of {width} x {height}, {step} bytes a row, with {data_bytes} bytes of data",
                      where="height, width, step, data",
                      why=f"{encoding} of that size has at least {width * pixel_size} bytes a row, and {rows} rows",
                      fix="correct the camera's driver: step and the rows of data do not agree")


def _coloured(pixels: str, height: int, width: int, data: np.ndarray, step: int) -> np.ndarray:
    if width % 2 or (pixels == "nv21" and height % 2):
        raise Refusal(f"an image of {pixels} of {width} x {height}", where="width, height",
                      why="neighbouring pixels share their colours", fix="publish frames of an even size")
    return _of_camera(pixels, (height, width), data, "encoding", step)


def pixel_bytes(data: Any) -> np.ndarray:
    """u8 [n] of what a message's uint8[] is in Python: bytes, array, list, or NumPy's."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError):
        pass
    try:
        found = np.asarray(data)
        if found.ndim == 1 and (found.dtype == np.uint8 or (found.dtype.kind in "iu" and found.size
                                                            and found.min() >= 0 and found.max() < 256)):
            return found.astype(np.uint8)
    except (TypeError, ValueError, OverflowError):
        pass
    raise Refusal("an image whose data are no bytes", where="data", why=f"it is a {type(data).__name__}",
                  fix="send sensor_msgs' own message")


def compressed(message: Any, size: Size | None = None) -> np.ndarray:
    """A sensor_msgs CompressedImage as u8 [H,W,3], or [H,W,1] of grey. size: (height, width) that alone is taken, which
    is known before anything is unpacked; None: any, of at most MOST_PIXELS. Raises Refusal."""
    kind, data = str(message.format), pixel_bytes(message.data)
    if "compressedDepth" in kind:
        raise Refusal("a compressed image of depth", where=f'format "{kind}"',
                      why="its bytes are not those of an image", fix="subscribe to the raw topic")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise Refusal("the package pillow is missing", where="CompressedImage", why="it unpacks compressed images",
                      fix="pip install 'vlacompile-runtime[ros]'; of a ROS 2 system, apt-get install python3-pil",
                      ) from error
    where = f'format "{kind[:40]}"'
    try:
        with Image.open(io.BytesIO(data.tobytes()), formats=("JPEG", "PNG")) as packed:
            found = packed.height, packed.width
            if size is not None and found != size:
                raise other_size(found, size)
            if packed.width * packed.height > MOST_PIXELS:
                raise ValueError(f"it has {packed.width} x {packed.height} pixels")
            if packed.mode not in ("L", "RGB", "RGBA", "P", "1", "LA"):
                raise ValueError(f"its pixels are {packed.mode}")
            grey = packed.mode in ("L", "1", "LA")
            if packed.format == "JPEG":  # Pillow says nothing of damaged data, which it fills with grey
                return _of_camera("jpeg", found, data, where)[..., :1 if grey else 3]
            return _pixels(packed.convert("L" if grey else "RGB"))
    except UNPACKING as error:
        why = "it is neither a JPEG nor a PNG" if isinstance(error, UnidentifiedImageError) else str(error)
        raise Refusal("a compressed image that cannot be unpacked", where=where,
                      why=why.partition("\n")[0] or type(error).__name__,
                      fix="send whole JPEG or PNG images of 8 bits") from error
    except Image.DecompressionBombError as error:
        raise Refusal("a compressed image that cannot be unpacked", where=where, why=str(error),
                      fix="send images of the camera's size") from error


def other_size(found: Size, wanted: Size) -> Refusal:
    """Of a frame that is not resized. Sizes: (height, width)."""
    return Refusal(f"a frame of {found[1]} x {found[0]}", where="width, height",
                   why=f"the policy takes {wanted[1]} x {wanted[0]}",
                   fix=f"publish frames of {wanted[1]} x {wanted[0]}, or, if the policy was trained on resized ones, "
                   "say `resize: METHOD` of the topic")


def _pixels(unpacked: Any) -> np.ndarray:
    """Of an image of Pillow's."""
    return np.array(unpacked).reshape(unpacked.height, unpacked.width, -1)


def _of_camera(pixels: str, size: Size, data: np.ndarray, where: str, step: int = 0) -> np.ndarray:
    """u8 [H,W,3], as libvlart reads it. step: bytes a row, 0: dense. Raises Refusal."""
    try:
        return Camera(pixels, size, size).convert(data, (step, step))
    except (ConfigError, RuntimeFailure) as error:
        raise Refusal(f"an image of {pixels} that cannot be read", where=where, why=error.why,
                      fix=error.fix) from error


def _unknown(encoding: Any) -> Refusal:
    if isinstance(encoding, str) and encoding.startswith("bayer_"):
        return Refusal(f'an image of encoding "{encoding}"', where="encoding",
                       why="its colours have to be interpolated, and there are several ways",
                       fix="subscribe to the topic of image_proc's debayer node")
    known = (*PIXELS, *LUMA_AND_CHROMA)
    return Refusal(f"an image of encoding {encoding!r}"[:120], where="encoding", why=nearest(encoding, known),
                   fix="have the driver or image_proc publish one of those")
