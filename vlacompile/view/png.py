"""A picture as PNG, for the page of `vlacompile view`."""

from __future__ import annotations

import struct
import zlib

import numpy as np

FAST = 1  # of zlib: pictures of a live page are looked at once


def png(picture: np.ndarray) -> bytes:
    """u8[H, W, 3] -> a PNG file (RFC 2083: eight bits per channel, no filter)."""
    height, width = picture.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, width * 3)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in (
        (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), FAST)), (b"IEND", b"")))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
