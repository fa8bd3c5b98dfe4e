"""`for k in iterations(K)`: a loop whose first iterations the compiler traces, and from which it extrapolates the rest.

Owns the number of traced iterations. Re-rolling (`compiler/staging/find_loop.py`) proves that the traced bodies are
equal; the extrapolated loop is compared with the whole function before a bundle is written.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from vlart.errors import CaptureError

TRACED = 3  # the first may start from a constant; the second and third show what changes per iteration
MOST = 10_000  # iterations of a loop that is compiled
Around = Callable[[int, int], contextlib.AbstractContextManager[None]]  # of (loop, iteration)


@dataclass
class _Tracing:
    """lengths, around, every: as of `traced`. within: whether a loop that stops early is running."""

    lengths: list[int] | None
    around: Around
    every: bool
    loops: Iterator[int] = field(default_factory=itertools.count)
    within: bool = False


_tracing: ContextVar[_Tracing | None] = ContextVar("tracing", default=None)


def iterations(count: int) -> Iterator[int]:
    """0, 1, ..., count-1, for the denoising or decoding loop of an inference function.

    During tracing it yields only the first three. The others follow from them if everything that differs between
    iterations is read from tensors by the index (`schedule[k]`) rather than computed from it in Python; otherwise, as a
    call with all of them shows, the loop is traced completely (unrolled). So is a loop within another that yields only
    three.
    """
    tracing = _tracing.get()
    if tracing is not None and count > MOST:
        caller = sys._getframe(1)
        raise CaptureError(f"a loop of {count} iterations",
                           where=f"{caller.f_code.co_filename}:{caller.f_lineno} in {caller.f_code.co_name}",
                           why=f"a replan waits for all of them; loops of up to {MOST} are compiled",
                           fix=f"allow at most {MOST}, e.g. with larger steps")
    if tracing is None or tracing.lengths is None or tracing.within or count <= TRACED + 1:
        yield from range(count)
        return
    number, tracing.within = len(tracing.lengths), True
    tracing.lengths.append(count)
    try:
        for k in range(count if tracing.every else TRACED):
            with tracing.around(number, k):
                yield k
    finally:
        tracing.within = False


@contextlib.contextmanager
def traced(lengths: list[int] | None, around: Around, every: bool = False) -> Iterator[None]:
    """Within this context the policy's function is traced. `iterations` stops early and `lengths` receives the true
    counts; None: it does not. around: a context for each iteration of the loops that stop early, in their order.
    every: these do not stop early."""
    token = _tracing.set(_Tracing(lengths, around, every))
    try:
        yield
    finally:
        _tracing.reset(token)


def is_traced() -> bool:
    return _tracing.get() is not None


def next_loop() -> int:
    """Numbers the loops of a trace."""
    tracing = _tracing.get()
    assert tracing is not None, "within `traced`"
    return next(tracing.loops)
