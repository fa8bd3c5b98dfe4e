"""`Threads`: how a thread runs: its priority, its cores, and whether the process's memory may be paged out."""

from __future__ import annotations

import ctypes as c
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from vlart.errors import ConfigError
from vlart.runtime.library import Diag, ThreadOptions, check, libvlart, whole


@dataclass(frozen=True)
class Threads:
    """priority: 0: the system's; 1 to 99: SCHED_FIFO. cores: numbers of those that it may run on; empty: any.
    lock_memory: no page of the process, now or later, is paged out. docs/boards.md says what the system must allow."""

    priority: int = 0
    cores: tuple[int, ...] = field(default=())
    lock_memory: bool = False

    def options(self) -> ThreadOptions:
        """As vlart_thread_options_t."""
        if not isinstance(self.cores, Collection) or isinstance(self.cores, (str, bytes)):
            raise ConfigError(f"cores is {self.cores!r}", where="Threads", why="it is a tuple of the numbers of cores",
                              fix="give a tuple")
        numbers = [whole("a core", core, c.c_uint32) for core in self.cores]
        cores = (c.c_uint32 * max(1, len(numbers)))(*numbers)
        found = ThreadOptions(priority=self.priority, lock_memory=int(bool(self.lock_memory)),
                              cores=c.cast(cores, c.c_void_p), core_count=len(self.cores))
        found.kept = cores  # alive as long as the options
        return found

    def apply(self) -> None:
        """The calling thread runs so from here on: the control loop's, say. Raises RuntimeFailure with status
        THREAD_REFUSED if the system does not allow it; the thread then runs as before."""
        diag = Diag()
        check(libvlart().vlart_thread_apply(c.byref(self.options()), c.byref(diag)), diag, "this thread")


def how_they_run(name: str, given: Any) -> Threads:
    """Raises ConfigError for what is no Threads."""
    if not isinstance(given, Threads):
        raise ConfigError(f"{name} is {given!r}", where="Session", why="a vlacompile.Threads says how threads run",
                          fix=f"{name}=Threads(...), or leave it out")
    return given
