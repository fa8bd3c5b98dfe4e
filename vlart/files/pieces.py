"""A file's content as arrays behind each other, of which only a part is in memory while it is hashed or written.

Owns the reading of it in chunks. Must not know what the arrays are.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Pieces:
    """arrays: (offset in bytes, array) in ascending order, with zeros between them; an array may have any strides, and
    is stored in C order."""

    arrays: Sequence[tuple[int, np.ndarray]] = field(repr=False)

    def __len__(self) -> int:
        """Bytes."""
        return self.arrays[-1][0] + self.arrays[-1][1].nbytes if self.arrays else 0

    def chunks(self) -> Iterator[memoryview]:
        at = 0
        for offset, array in self.arrays:
            if offset > at:
                yield memoryview(bytes(offset - at))
            yield from _rows(array)
            at = offset + array.nbytes

    @functools.cached_property
    def digests(self) -> tuple[int, str]:
        """(crc32, sha256), in one reading."""
        crc, sha = 0, hashlib.sha256()
        for chunk in self.chunks():
            crc = zlib.crc32(chunk, crc)
            sha.update(chunk)
        return crc, sha.hexdigest()


Content = bytes | Pieces


def chunks_of(content: Content) -> Iterator[bytes | memoryview]:
    return content.chunks() if isinstance(content, Pieces) else iter((content,))


def crc32_of(content: Content) -> int:
    return content.digests[0] if isinstance(content, Pieces) else zlib.crc32(content)


def sha256_of(content: Content) -> str:
    return content.digests[1] if isinstance(content, Pieces) else hashlib.sha256(content).hexdigest()


def _rows(array: np.ndarray) -> Iterator[memoryview]:
    if not array.nbytes:
        return
    array = array[None] if array.ndim == 0 else array
    count = max(1, CHUNK_BYTES // max(1, array.nbytes // len(array)))
    for first in range(0, len(array), count):
        yield np.ascontiguousarray(array[first:first + count]).view(np.uint8).reshape(-1).data
