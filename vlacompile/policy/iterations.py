"""`for k in iterations(K)`: a loop of which the compiler traces the first iterations and extrapolates the rest.

Owns how many are traced. Re-rolling (`compiler/staging/find_loop.py`) proves the traced bodies equal; what is
extrapolated is compared with the whole function before a bundle is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

TRACED = 3  # the first may start from a constant; the second and third show what changes from one to the next

_shortened: ContextVar[list[int] | None] = ContextVar("shortened", default=None)


def iterations(count: int) -> Iterator[int]:
    """0, 1, ..., count-1, for the loop of an inference function with many steps.

    While the compiler traces, only the first three: the others follow from them when what differs between iterations
    is read from tensors by the index (`schedule[k]`), not computed from it in Python. Where that is not so, the loop
    is traced whole.
    """
    lengths = _shortened.get()
    if lengths is None or count <= TRACED + 1:
        yield from range(count)
    else:
        lengths.append(count)
        yield from range(TRACED)


@contextlib.contextmanager
def shortened() -> Iterator[list[int]]:
    """Inside, `iterations` stops early; the list receives the true counts."""
    lengths: list[int] = []
    token = _shortened.set(lengths)
    try:
        yield lengths
    finally:
        _shortened.reset(token)
