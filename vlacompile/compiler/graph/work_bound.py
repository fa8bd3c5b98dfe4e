"""How much a pass may do: in proportion to what it is given, and not more.

Owns the count of steps and the error of a pass that takes too many. What walks over a graph says so with `spend`; the
pipeline opens a bound around every pass. Must not know what a pass does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from vlart.errors import StagingError


@dataclass
class Work:
    """The steps of one pass over one program: `done` so far, of `limit`."""

    name: str
    limit: int
    done: int = 0

    def spend(self, steps: int) -> None:
        self.done += steps
        if self.done > self.limit:
            raise StagingError(
                f"{self.name} does not come to an end", where=self.name,
                why=f"it has taken {self.done:,} steps over a graph that should need fewer than {self.limit:,}",
                fix="report the lines of the inference function that it may walk over again and again")


STEPS = 1000  # per node and row; what is linear takes tens of them, a search for loops in vain hundreds
_CURRENT: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def bounded(name: str, size: int) -> Iterator[Work]:
    """Inside, what is spent counts as work of `name` on a program of this size. Raises StagingError beyond what is in
    proportion to it."""
    token = _CURRENT.set(work := Work(name, STEPS * (100 + size)))
    try:
        yield work
    finally:
        _CURRENT.reset(token)


def spend(steps: int = 1) -> None:
    """So many steps are done by the pass that is running."""
    work = _CURRENT.get()
    if work is not None:
        work.spend(steps)
