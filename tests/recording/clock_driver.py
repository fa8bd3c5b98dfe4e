"""Run with libset_clock.so preloaded: `clock_driver.py BUNDLE FOLDER`. Makes a recording for each of SCENARIOS, in
which the wall clock is set while the robot runs, and ends as a robot that is switched off. Before that it prints what
both clocks said at the end of each, in nanoseconds."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.samples import recorded_robot as robot
from vlart.recording.log import Log
from vlart.runtime.recorder import Recorder
from vlart.runtime.session import Session

S, MS = 10**9, 10**6
UNSET_NS = -1_700_000_000 * S  # ahead: of a machine without a battery, whose clock begins with 1970
KILLED = "killed"


@dataclass(frozen=True)
class Scenario:
    """begin_ns: how far the clock is ahead when the recording begins. sets_ns: what it is set to, one after the other.
    told: how many of these are more than a slew. episodes: after the last. mib: of the file."""

    begin_ns: int
    sets_ns: tuple[int, ...]
    told: int
    episodes: int = 1
    mib: float = 1.0

    @property
    def moved_ns(self) -> int:
        return self.sets_ns[-1] - self.begin_ns if self.sets_ns else 0


SCENARIOS = {
    "untouched": Scenario(0, (), 0),
    "forward": Scenario(-11520 * S, (0,), 1),
    "backward": Scenario(1800 * S, (0,), 1),
    "first": Scenario(UNSET_NS, (0,), 1),
    "twice": Scenario(0, (100 * S, -40 * S), 2),
    "there and back": Scenario(0, (100 * S, 0), 2),
    "slewed": Scenario(0, (7 * MS,), 0),
    "overwritten": Scenario(0, (7200 * S,), 1, episodes=400, mib=1 / 8),
    KILLED: Scenario(0, (-7200 * S,), 1),
}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(2e-3)


def now() -> tuple[int, int]:
    """(CLOCK_REALTIME, CLOCK_MONOTONIC), of one moment."""
    readings = []
    for _ in range(20):
        before = time.monotonic_ns()
        wall = time.time_ns()
        readings.append((time.monotonic_ns() - before, wall, before))
    return min(readings)[1:]


def main(bundle: str, folder: str) -> None:
    library, said = ctypes.CDLL(None), {}
    library.clock_set.argtypes = [ctypes.c_int64]
    for name, scenario in SCENARIOS.items():
        path = Path(folder) / f"{name}.vlog"
        library.clock_set(scenario.begin_ns)
        recorder = Recorder(path, mib=scenario.mib, track_mib=4, flush_ms=1)
        session = Session(bundle, record=recorder)
        robot.drive(session, episodes=1)
        for sets, ahead_ns in enumerate(scenario.sets_ns, 1):
            library.clock_set(ahead_ns)
            until(lambda sets=sets: not scenario.told or Log(path).clock.changes == sets)
        robot.drive(session, episodes=scenario.episodes, replans=2)
        written = recorder.info().events
        said[name] = now()
        if name == KILLED:
            until(lambda: Log(path).info.events > written)
            print(json.dumps(said), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        session.close()
        recorder.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
