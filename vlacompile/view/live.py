"""What a recording says now: stages, queue, the chunk beside what was executed, cameras, the router. Read while the
robot's program writes it, each time what is new in it; nothing is asked of that program."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vlart.bundle.directory import PLAN_FILE, Bundle
from vlart.errors import VlaError
from vlart.recording.growing import Growing
from vlart.recording.log import Event, Log
from vlart.recording.replay import ACTED, status_name
from vlart.recording.timeline import cameras, picture

MOST_ACTIONS = 400
MOST_STEPS = 200
SHARE = 0.2  # of one processor, that reading may take


@dataclass
class _Session:
    """Of one track that steps, and of the control thread beside it."""

    stages: list[dict] = field(default_factory=list)
    steps: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_STEPS))  # ms
    status: str = ""
    text: str = ""
    chunk: np.ndarray | None = None
    chunk_ns: int = 0
    chunks: int = 0
    remaining: int = 0
    replans: int = 0
    failures: int = 0
    misses: int = 0


class Live:
    """path: of the recording, which may not exist yet. bundle: whose recording it must be. clock: seconds, which only
    advance."""

    def __init__(self, path: Path, bundle: Bundle, clock: Callable[[], float] = time.monotonic):
        self.path, self.bundle, self._clock = path, bundle, clock
        self._plan = (bundle.path / PLAN_FILE).read_bytes()
        self._growing, self._next_s = Growing(path), 0.0
        self._begin(0)

    def _begin(self, recording: int) -> None:
        self._recording = recording
        self._session = _Session()
        self._actions: deque[tuple[int, np.ndarray, bool]] = deque(maxlen=MOST_ACTIONS)
        self._pictures: dict[str, tuple[int, np.ndarray]] = {}
        self._decision: dict | None = None
        self._last_ns, self._wall_ns, self._events, self._lost = 0, 0, 0, 0
        self._set = ""  # what there is to say of the wall clock
        self._aged: tuple[float, float] | None = None  # the newest event's age, and when it had it
        self._caught_up = False  # with what was recorded before the page looked
        self._problem = f"waiting for {self.path}"

    @property
    def read_bytes(self) -> int:
        """Of the recording's file, so far."""
        return self._growing.read_bytes

    def picture(self, name: str) -> np.ndarray | None:
        """The newest of a camera: u8[H, W, 3]."""
        found = self._pictures.get(name)
        return None if found is None else found[1]

    def read(self) -> dict[str, Any]:
        """The state as a JSON document. The file is read at most so often that reading it takes SHARE of the time."""
        if self._clock() >= self._next_s:
            began = self._clock()
            self._refresh()
            self._next_s = self._clock() + (self._clock() - began) / SHARE
        return self._document()

    def _refresh(self) -> None:
        """Reads what is new."""
        growing = self._growing
        try:
            new = growing.look()
        except FileNotFoundError:
            self._problem = f"waiting for {self.path}"
            return
        except OSError as error:
            self._problem = f"cannot read {self.path}: {error.strerror}"
            return
        except VlaError as error:
            self._problem = f"{error.what}: {error.why}"
            return
        if growing.recording != self._recording:
            self._begin(growing.recording)
        assert growing.plan is not None
        if growing.plan_bytes != self._plan:
            self._problem = (f'{self.path} is a recording of another bundle, "{growing.plan.name}" '
                             f"({sha256(growing.plan_bytes).hexdigest()[:12]})")
            return
        self._problem = "" if not growing.cut_bytes else \
            f"{self.path} was cut off: {growing.cut_bytes} bytes of its end are not there"
        if new is not None:
            self._take_all(*new)
            self._aged = self._age_s(), self._clock()
            self._caught_up = not growing.is_behind

    def _age_s(self) -> float:
        """Of the newest event, as it is read: by the wall clock for what was recorded before, which may have been set
        since; what comes while the page looks is new, whatever any clock says."""
        return 0.0 if self._caught_up else max(0.0, (time.time_ns() - self._wall_ns) / 1e9)

    def _take_all(self, log: Log, events: list[Event]) -> None:
        names, shown = [log.plan.values[s.value].name for s in log.plan.sources], cameras(log)
        for event in events:
            self._events += 1
            self._take(event, log, names, shown)
            self._last_ns = max(self._last_ns, event.time_ns)
        self._wall_ns, self._set = log.wall_ns(self._last_ns), log.clock.words()

    def _take(self, event: Event, log: Log, names: list[str], shown: Mapping[str, tuple[int, int]]) -> None:
        match event.kind:
            case "source" if event.has("full") and names[int(event.number("source"))] in shown:
                name = names[int(event.number("source"))]
                version = self._pictures.get(name, (0, None))[0]
                self._pictures[name] = version + 1, picture(log.content(event))
            case "text":
                self._session.text = event.text
            case "step":
                self._step(event, log)
            case "pop":
                status = status_name(event.fields["status"])
                for action in event.actions if status in ACTED else ():
                    self._actions.append((event.time_ns, action, status == "SAFE_ACTION"))
            case "decision":
                self._decision = self._decided(event, log)
            case "loss":
                self._lost += int(event.number("events"))

    def _step(self, event: Event, log: Log) -> None:
        session, action = self._session, log.plan.action
        session.status = status_name(event.fields["status"])
        session.replans += 1
        session.failures += session.status != "OK"
        session.misses = int(event.number("deadline_misses"))
        session.steps.append(float(event.number("ns")) / 1e6)
        session.remaining, session.chunks = int(event.number("remaining")), int(event.number("chunk"))
        if not session.stages:
            session.stages = [{"stage": s.name, "ms": None, "runs": 0, "iterations": 0, "ran": False}
                              for s in log.plan.stages]
        for row, found in zip(session.stages, event.stages, strict=True):
            row |= {"runs": int(found["runs"]), "iterations": int(found["iterations"]), "ran": bool(found["ran"])}
            if found["ns"]:
                row["ms"] = float(found["ns"]) / 1e6
        if event.chunk is not None and action is not None:
            session.chunk = event.chunk.reshape(action.chunk_steps, action.action_dim)
            session.chunk_ns = event.time_ns

    def _decided(self, event: Event, log: Log) -> dict:
        count = int(event.number("backbone_count"))
        names = [b.name for b in log.plan.backbones] or [str(i) for i in range(count)]
        alpha, beta, at_least = (event.fields[f] for f in ("alpha", "beta", "probability"))
        assert isinstance(alpha, tuple) and isinstance(beta, tuple) and isinstance(at_least, tuple)
        taken = int(event.number("backbone"))
        return {"text": event.text, "taken": names[taken] if taken < len(names) else "", "backbones": [
            {"name": name, "mean": _number(a / (a + b)) if a + b else None, "evidence": _number(a + b),
             "probability": _number(p)} for name, a, b, p in zip(names, alpha[:count], beta, at_least, strict=False)]}

    def _document(self) -> dict[str, Any]:
        session, action = self._session, self.bundle.plan.action
        times = sorted(session.steps)
        first_ns = self._actions[0][0] if self._actions else session.chunk_ns
        return {
            "problem": self._problem,
            "age_s": None if self._aged is None else self._aged[0] + self._clock() - self._aged[1],
            "events": self._events, "lost": self._lost, "wall_clock": self._set,
            "passed_blocks": self._growing.passed_blocks, "behind": self._growing.is_behind,
            "status": session.status, "text": session.text,
            "replans": session.replans, "failures": session.failures, "misses": session.misses,
            "replan_ms": {"last": session.steps[-1], "median": times[len(times) // 2], "most": times[-1]}
            if times else None,
            "queue": {"remaining": session.remaining, "chunks": session.chunks,
                      "steps": action.chunk_steps if action else 0, "execute": action.execute_steps if action else 0},
            "stages": session.stages,
            "executed": {"s": [(t - first_ns) / 1e9 for t, _, _ in self._actions],
                         "values": [_finite(a) for _, a, _ in self._actions],
                         "safe": [i for i, (_, _, safe) in enumerate(self._actions) if safe]},
            "chunk": None if session.chunk is None else {"s": (session.chunk_ns - first_ns) / 1e9,
                                                         "values": [_finite(row) for row in session.chunk]},
            "tick_s": self._tick_s(), "cameras": {name: version for name, (version, _) in self._pictures.items()},
            "decision": self._decision,
        }

    def _tick_s(self) -> float | None:
        """Between executed actions: the median."""
        times = [t for t, _, _ in self._actions]
        gaps = sorted(b - a for a, b in pairwise(times) if b > a)
        return gaps[len(gaps) // 2] / 1e9 if gaps else None


def _finite(row: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [_number(v) for v in row]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
