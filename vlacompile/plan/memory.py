"""Places values in the arena. Every value is a cache that a later step may read again, so none
shares its place; offsets follow the order of the values."""

from __future__ import annotations

from collections.abc import Iterable

from vlacompile.bundle.layout import align_up
from vlacompile.plan.plan import TensorType


def arena_offsets(types: Iterable[TensorType]) -> tuple[list[int], int]:
    """(offset of each value in bytes, size of the arena)."""
    offsets, end = [], 0
    for t in types:
        offsets.append(end)
        end = align_up(end + t.bytes)
    return offsets, end
