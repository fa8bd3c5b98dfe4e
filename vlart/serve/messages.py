"""MessagePack with NumPy arrays, in the format of openpi's clients; arrays are validated while parsing.

An array is a map {b"__ndarray__": true, b"data": bytes, b"dtype": text, b"shape": [...]}, a NumPy number
{b"__npgeneric__": true, b"data": number, b"dtype": text} (openpi-client, `msgpack_numpy.py`). Apart from these only
plain data is accepted; no object is ever constructed from a name.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from vlart.serve.refusal import Refusal

MAX_ITEMS, MAX_KEYS, MAX_RANK = 100_000, 1_000, 8
KINDS = "fiub"  # accepted kinds of dtype: numbers and booleans


def pack(content: dict) -> bytes:
    return msgpack.packb(content, default=_packed)


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(type(value).__name__)


def unpack(data: bytes) -> Any:
    """Raises Refusal of kind "malformed"."""
    try:
        return msgpack.unpackb(data, object_hook=_unpacked, max_array_len=MAX_ITEMS, max_map_len=MAX_KEYS)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        why = str(error) if isinstance(error, _Wrong) else f"{type(error).__name__}: {error}"
        raise Refusal("the message cannot be read", where=f"{len(data)} bytes", why=why[:300],
                      fix="send one MessagePack dictionary with arrays as openpi-client packs them",
                      kind="malformed") from error


class _Wrong(ValueError):
    pass


def _unpacked(value: dict) -> Any:
    if b"__ndarray__" in value:
        dtype, data, shape = _dtype(value), value.get(b"data"), value.get(b"shape")
        if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > MAX_RANK or not all(
                isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
            raise _Wrong("an array has no bytes or no shape")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise _Wrong(f"an array of {dtype.name} and shape {shape} with {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape)
    if b"__npgeneric__" in value:
        dtype, data = _dtype(value), value.get(b"data")
        if not isinstance(data, (int, float)):
            raise _Wrong("a NumPy number without a number")
        try:
            return np.asarray(data, dtype)[()]
        except OverflowError as error:
            raise _Wrong(str(error)) from error
    return value


def _dtype(value: dict) -> np.dtype:
    text = value.get(b"dtype")
    known = isinstance(text, str) and len(text) <= 4 and text[:1] in "<>|=" and text[1:2] in tuple(KINDS)
    if not known or text[2:] not in ("1", "2", "4", "8"):
        raise _Wrong(f"an array of {str(text)[:20]!r}, which is not a numeric dtype")
    try:
        return np.dtype(text)
    except TypeError as error:
        raise _Wrong(str(error)) from error
