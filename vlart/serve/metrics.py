"""Counters of a server, and their text in Prometheus' exposition format 0.0.4.

Thread-safe: updated from several threads; text() reads a consistent copy.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from vlart.errors import printable
from vlart.runtime.stage_times import StageTimes

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "requests": ("counter", "observations answered, by outcome"),
    "connections": ("counter", "connections, by outcome"),
    "clients": ("gauge", "connected clients"),
    "queue": ("gauge", "robots whose newest observation waits for a session"),
    "sessions": ("gauge", "sessions of the policy"),
    "wait_seconds": ("histogram", "time of a request in the queue"),
    "infer_seconds": ("histogram", "time of a request in the session: write, step, read"),
    "stage_runs": ("counter", "completed runs of a stage"),
    "stage_seconds": ("counter", "time in a stage"),
    "resident_memory_bytes": ("gauge", "resident memory of the process"),
}


class Metrics:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._times: dict[str, list[float]] = {}  # counts per bucket, followed by the sum
        self._stages: dict[int, Mapping[str, StageTimes]] = {}  # by session

    def count(self, name: str, outcome: str, by: int = 1) -> None:
        with self._lock:
            self._counts[name][f'outcome="{outcome}"'] += by

    def gauge(self, name: str, value: float) -> None:
        with self._lock:
            self._counts[name][""] = value

    def add(self, name: str, by: float) -> None:
        with self._lock:
            self._counts[name][""] += by

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            row = self._times.setdefault(name, [0.0] * (len(BUCKETS_S) + 2))
            row[bisect_left(BUCKETS_S, seconds)] += 1
            row[-1] += seconds

    def stages(self, session: int, stages: Mapping[str, StageTimes]) -> None:
        with self._lock:
            self._stages[session] = dict(stages)

    def value(self, name: str, outcome: str | None = None) -> float:
        with self._lock:
            return self._counts[name]["" if outcome is None else f'outcome="{outcome}"']

    def text(self) -> str:
        with self._lock:
            counts = {name: dict(rows) for name, rows in self._counts.items()}
            times, sessions = {name: list(row) for name, row in self._times.items()}, list(self._stages.values())
        stages = {n: [s[n] for s in sessions] for n in (sessions[0] if sessions else ())}
        counts["resident_memory_bytes"] = {"": resident_bytes()}
        counts["stage_runs"] = {f'stage="{_escaped(n)}"': sum(s.runs for s in of) for n, of in stages.items()}
        counts["stage_seconds"] = {f'stage="{_escaped(n)}"': sum(s.total_us for s in of) / 1e6
                                   for n, of in stages.items()}
        lines = []
        for name, (kind, text) in _HELP.items():
            full = f"vlacompile_{name}" + ("_total" if kind == "counter" else "")
            rows = [f"{full}{{{labels}}} {value:g}" if labels else f"{full} {value:.17g}"
                    for labels, value in sorted(counts.get(name, {}).items())]
            if name in times:
                rows = _histogram(full, times[name])
            if rows:
                lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", *rows]
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    lines = label.replace("\\", r"\\").replace('"', r"\"").split("\n")
    return r"\n".join(map(printable, lines))


def _histogram(full: str, row: list[float]) -> list[str]:
    rows, total = [], 0.0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), row[:-1], strict=True):
        total += count
        rows.append(f'{full}_bucket{{le="{bound}"}} {total:g}')
    return [*rows, f"{full}_sum {row[-1]:.9g}", f"{full}_count {total:g}"]


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process (Linux); 0 if it cannot be read."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
