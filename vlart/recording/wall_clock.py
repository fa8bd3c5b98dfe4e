"""The wall clock of a recording: when its events were, and whether somebody set the clock meanwhile.

Events have times of the steady clock. A clock is set in order to be right, so that all dates count from its newest
reading: they are continuous and in order, also before it was set.
"""

from __future__ import annotations

from dataclasses import dataclass

LATEST_NS = (1 << 63) - 1  # in the year 2262; dates are 64-bit numbers with a sign in every format
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class WallClock:
    """first_ns, newest_ns: CLOCK_REALTIME - CLOCK_MONOTONIC when the recording began, and as it was read last. changes:
    how often the clock was set between the two, by more than 10 ms."""

    first_ns: int
    newest_ns: int
    changes: int

    @property
    def moved_ns(self) -> int:
        """By how much it was set, in all."""
        return self.newest_ns - self.first_ns

    def wall_ns(self, time_ns: int) -> int:
        """A time of the steady clock as nanoseconds since 1970; not before that, whatever a clock said."""
        return min(max(0, time_ns + self.newest_ns), LATEST_NS)

    def as_dict(self) -> dict:
        return {"clock_changes": self.changes, "clock_moved_s": self.moved_ns / 1e9}

    def words(self) -> str:
        """One line for a person; "" where nobody set it."""
        if not self.changes:
            return ""
        times, in_all = ("time", "") if self.changes == 1 else ("times", " in all")
        return (f"the wall clock was set {self.changes} {times}, by {_amount(self.moved_ns)}{in_all}: dates count from "
                "its last reading")


def _amount(ns: int) -> str:
    for unit, seconds in UNITS:
        if abs(ns) >= seconds * 10**9:
            return f"{ns / seconds / 1e9:+.1f} {unit}"
    return f"{ns / 1e6:+.0f} ms"
