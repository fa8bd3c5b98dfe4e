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
MAX_VALUES, MAX_CONTAINERS = 1_000_000, 250_000  # of a message: an empty list is a byte there, and 60 of them here
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
        _count(data)
        return msgpack.unpackb(data, object_hook=_unpacked, max_array_len=MAX_ITEMS, max_map_len=MAX_KEYS)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        why = str(error) if isinstance(error, _Wrong) else f"{type(error).__name__}: {error}"
        raise Refusal("the message cannot be read", where=f"{len(data)} bytes", why=why[:300],
                      fix="send one MessagePack dictionary with arrays as openpi-client packs them",
                      kind="malformed") from error


class _Wrong(ValueError):
    pass


# {first byte: (bytes of a value's head, how many of its last ones are its length)} (the MessagePack specification).
_HEADS = {0xC4: (2, 1), 0xC5: (3, 2), 0xC6: (5, 4), 0xC7: (2, 1), 0xC8: (3, 2), 0xC9: (5, 4), 0xCA: (5, 0),
          0xCB: (9, 0), 0xCC: (2, 0), 0xCD: (3, 0), 0xCE: (5, 0), 0xCF: (9, 0), 0xD0: (2, 0), 0xD1: (3, 0),
          0xD2: (5, 0), 0xD3: (9, 0), 0xD4: (3, 0), 0xD5: (4, 0), 0xD6: (6, 0), 0xD7: (10, 0), 0xD8: (18, 0),
          0xD9: (2, 1), 0xDA: (3, 2), 0xDB: (5, 4), 0xDC: (3, 0), 0xDD: (5, 0), 0xDE: (3, 0), 0xDF: (5, 0)}
_HEADS |= {byte: (1 + (byte & 31), 0) for byte in range(0xA0, 0xC0)}  # short texts
_CONTAINERS = frozenset((*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF))
_EXTENSIONS = frozenset((0xC7, 0xC8, 0xC9))  # have a byte of type after their length


def _count(data: bytes) -> None:
    """Values follow one another, those of a list or dictionary its head: no nesting has to be known to count them,
    before any is made."""
    at = values = containers = 0
    while at < len(data):
        byte = data[at]
        values += 1
        containers += byte in _CONTAINERS
        if values > MAX_VALUES or containers > MAX_CONTAINERS:
            raise _Wrong(f"more than {MAX_VALUES} values, or {MAX_CONTAINERS} lists and dictionaries")
        head, length = _HEADS.get(byte, (1, 0))
        if length:
            head += int.from_bytes(data[at + head - length:at + head], "big") + (byte in _EXTENSIONS)
        at += head


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
