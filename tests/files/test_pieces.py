"""A content in pieces is hashed and written as the same bytes in one piece are."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest

from vlart.files import pieces
from vlart.files.atomic import write_tree
from vlart.files.pieces import Pieces, chunks_of, crc32_of, sha256_of

RNG = np.random.default_rng(0)
ARRAYS = [RNG.standard_normal((5, 7)).astype(np.float32).T, np.array(3, np.int64), np.zeros((0, 4), np.int8),
          RNG.integers(0, 9, (3, 2, 4)).astype(np.int8)[:, ::-1]]


def _laid_out() -> tuple[Pieces, bytes]:
    """With every array at a multiple of 64."""
    placed, data = [], b""
    for array in ARRAYS:
        data += b"\0" * (-len(data) % 64)
        placed.append((len(data), array))
        data += array.tobytes()
    return Pieces(placed), data


@pytest.mark.parametrize("chunk_bytes", [1, 16, 1 << 20])
def test_the_same_bytes_whatever_the_chunks(monkeypatch, chunk_bytes, tmp_path):
    monkeypatch.setattr(pieces, "CHUNK_BYTES", chunk_bytes)
    found, data = _laid_out()
    assert len(found) == len(data) and b"".join(chunks_of(found)) == data
    assert crc32_of(found) == zlib.crc32(data) == crc32_of(data)
    assert sha256_of(found) == hashlib.sha256(data).hexdigest() == sha256_of(data)
    write_tree(tmp_path / "new", {"a": data, "b/c": found})
    assert (tmp_path / "new/b/c").read_bytes() == (tmp_path / "new/a").read_bytes() == data


def test_nothing_is_no_bytes():
    assert len(Pieces([])) == 0 and sha256_of(Pieces([])) == sha256_of(b"")


def test_large_arrays_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(pieces, "CHUNK_BYTES", 64)
    sizes = [len(chunk) for chunk in Pieces([(0, np.ones((100, 4), np.float32))]).chunks()]
    assert max(sizes) <= 64 and sum(sizes) == 1600
