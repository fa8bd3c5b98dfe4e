"""The memory that this process has for itself: anonymous pages, without those of mapped files; and what is left.

Owns the reading of Linux' counters, and the peak between two readings. Must not know what takes the memory.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

_STATUS, _INFO = Path("/proc/self/status"), Path("/proc/meminfo")
EVERY_S = 0.005


def anonymous_bytes() -> int:
    """Of this process, now."""
    return _kibibytes(_STATUS, "RssAnon:") * 1024


def available_bytes(group: Path = Path("/sys/fs/cgroup")) -> int:
    """What processes can take before the system has to end one: free, in caches that it can drop, or in swap; less
    where the group of processes has a limit."""
    free = (_kibibytes(_INFO, "MemAvailable:") + _kibibytes(_INFO, "SwapFree:")) * 1024
    limit, used = group / "memory.max", group / "memory.current"
    if not limit.is_file() or not used.is_file() or not (most := limit.read_text(encoding="ascii").strip()).isdigit():
        return free
    caches = next((int(line.split()[1]) for line in (group / "memory.stat").read_text(encoding="ascii").splitlines()
                   if line.startswith("file ")), 0)
    return min(free, int(most) - int(used.read_text(encoding="ascii")) + caches)


def _kibibytes(path: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text(encoding="ascii").splitlines() if line.startswith(key))


class AnonymousPeak:
    """Within the context, a thread samples the memory; what is taken for less than EVERY_S may be missed."""

    def __init__(self) -> None:
        self._highest, self._ended = anonymous_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="anonymous-peak", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> int:
        """Bytes, the most since the last call."""
        now = anonymous_bytes()
        highest, self._highest = max(self._highest, now), now
        return highest

    def _sample(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._highest = max(self._highest, anonymous_bytes())
