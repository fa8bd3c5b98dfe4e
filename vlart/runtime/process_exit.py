"""What still runs on a thread inside libvlart when the interpreter ends is ended before it: a daemon thread does not
stop for the interpreter, which would free the engine's memory, and the engine's library its own, beneath it."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class Running(Protocol):
    def end(self) -> None:
        """Stop the thread and wait until it has left libvlart."""


_running: weakref.WeakSet[Running] = weakref.WeakSet()
_recording: weakref.WeakSet[Running] = weakref.WeakSet()


def end_at_exit(running: Running, *, records: bool = False) -> None:
    """Have it ended when the interpreter ends, if it still exists. It may be ended before, any number of times.
    records: after what does not, whose last events are then in the recording."""
    (_recording if records else _running).add(running)


@atexit.register
def _end_all() -> None:
    for running in (*_running, *_recording):
        running.end()
