"""`for k in iterations(K)`: a loop whose first iterations the compiler traces, and from which it extrapolates the rest.

Owns the number of traced iterations. Re-rolling (`compiler/staging/find_loop.py`) proves that the traced bodies are
equal; the extrapolated loop is compared with the whole function before a bundle is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

TRACED = 3  # the first may start from a constant; the second and third show what changes per iteration

_shortened: ContextVar[list[int] | None] = ContextVar("shortened", default=None)


def iterations(count: int) -> Iterator[int]:
    """0, 1, ..., count-1, for the denoising or decoding loop of an inference function.

    During tracing it yields only the first three. The others follow from them if everything that differs between
    iterations is read from tensors by the index (`schedule[k]`) rather than computed from it in Python; otherwise the
    loop is traced completely (unrolled).
    """
    lengths = _shortened.get()
    if lengths is None or count <= TRACED + 1:
        yield from range(count)
    else:
        lengths.append(count)
        yield from range(TRACED)


@contextlib.contextmanager
def shortened() -> Iterator[list[int]]:
    """Within this context `iterations` stops early; the list receives the true counts."""
    lengths: list[int] = []
    token = _shortened.set(lengths)
    try:
        yield lengths
    finally:
        _shortened.reset(token)
