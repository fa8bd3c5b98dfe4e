"""Work in a process that is forked from the test's own, as multiprocessing forks it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

LIMIT_S = 60


def in_child(work: Callable[[], object]) -> None:
    """Fails where it raises, crashes or does not end. It ends without what Python does at its end, which would be that
    of the test's runner."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001  of a test
            traceback.print_exc()
        finally:
            os._exit(status)
    until = time.monotonic() + LIMIT_S
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the child does not end within {LIMIT_S} s")
        time.sleep(5e-3)
    assert ended[1] == 0, f"the child ended with status {ended[1]}"
