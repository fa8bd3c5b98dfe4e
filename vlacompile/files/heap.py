"""The C library's heap, which keeps what was freed between blocks that are in use."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Returns what is free to the system, where the C library can."""
    if (trim := _trim()) is not None:
        trim(0)


class GivenBack:
    """Gives back after every so many bytes: of many blocks that are freed one after the other, the heap would keep as
    much as of all together."""

    def __init__(self, every_bytes: int):
        self.every_bytes, self._since = every_bytes, 0

    def after(self, freed_bytes: int) -> None:
        self._since += freed_bytes
        if self._since > self.every_bytes:
            give_back()
            self._since = 0


@functools.cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
