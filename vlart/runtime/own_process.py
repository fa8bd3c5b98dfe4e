"""`OwnProcess`: which process opened something of libvlart. A fork copies a session's memory, and none of the threads
that compute for it: used in the child it would wait for them for ever, and closed there it would wait for their end."""

from __future__ import annotations

import ctypes as c
import functools
import os

from vlart.errors import RuntimeFailure


class OwnProcess:
    """what: is opened by the process that makes this, such as "session"."""

    def __init__(self, what: str):
        self._what, self._process = what, os.getpid()

    def is_this(self) -> bool:
        """False in a process that was forked since."""
        return os.getpid() == self._process

    def require(self, where: object) -> None:
        """Raises RuntimeFailure in a process that was forked since."""
        if not self.is_this():
            raise RuntimeFailure(f"the {self._what} is of another process", where=str(where),
                                 why=f"process {self._process} opened it, from which this one was forked, without the "
                                     "threads that compute",
                                 fix="open it in this process; of torch's DataLoader, in worker_init_fn",
                                 status="BAD_ARGUMENT")


@functools.cache
def let_children_end() -> None:
    """Before an engine's library is loaded: processes that are forked from now on end without the exit handlers of the
    libraries that this one had loaded. ONNX Runtime 1.32 waits in its own for threads that the child does not have."""
    libc = c.CDLL(None)
    if not hasattr(libc, "on_exit"):  # of glibc
        return
    last = (libc._exit, libc.fcloseall)

    def end_without_handlers() -> None:
        """What is registered last runs first: streams of C are flushed, then the process is over, with the exit status
        that handlers are called with. Python has done by then all that it does at its end."""
        for function in last:
            libc.on_exit(function, None)

    os.register_at_fork(after_in_child=end_without_handlers)
