"""Progress of a transfer of known size, one line every two seconds. Must not know what is transferred or how."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

EVERY_S = 2.0  # seconds between progress messages
RATE_OVER = 5  # messages over which the rate is averaged: small files transfer slower than large ones


class Transfer:
    """Reports every two seconds how much of `total` bytes was transferred, the rate, and the remaining time.

    what: the words that begin the first line ("send"); past: those of the others ("sent"). Nothing is reported of no
    bytes.
    """

    def __init__(self, total: int, progress: Callable[[str], None], what: str = "send", past: str = "sent"):
        self._total, self._progress, self._past, self._done = total, progress, past, 0
        self._said: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], RATE_OVER)
        if total:
            progress(f"{what} {total / 1e6:.1f} MB")

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said[-1][0] < EVERY_S:
            return
        then, before = self._said[0]
        self._said.append((now, self._done))
        rate = (self._done - before) / (now - then)
        left = f", {max(self._total - self._done, 0) / rate:.0f} s left" if rate > 0 else ""
        self._progress(f"{self._past} {self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
                       f"{left}")
