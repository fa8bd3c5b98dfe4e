"""A recording as episodes: what was observed, predicted and executed, on one time line.

What exports are made of. Must not know file formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vlart.recording.async_stretches import CANCEL_EPISODE
from vlart.recording.log import Event, Log
from vlart.recording.replay import ACTED, by_track, status_name
from vlart.recording.replay_async import sessions_of
from vlart.runtime.session import CONTROL_OPTION


@dataclass(frozen=True)
class Observed:
    """A replan. time_ns: when its step began; end_ns: when it ended. sources: {name: content} of all that were known
    then. fresh: names of those written since the last one. chunk: f32[chunk_steps, action_dim], if it gave a new
    one. stages: {stage that ran: milliseconds}."""

    time_ns: int
    end_ns: int
    name: int
    status: str
    sources: Mapping[str, np.ndarray] = field(repr=False)
    fresh: frozenset[str]
    chunk: np.ndarray | None = field(repr=False)
    stages: Mapping[str, float]


@dataclass(frozen=True)
class Executed:
    """An action that was handed out. observation, chunk, row: what it was made of; 0 of a safe action."""

    time_ns: int
    action: np.ndarray
    status: str
    observation: int
    chunk: int
    row: int


@dataclass
class EpisodeLine:
    """text: the last instruction that was given as text; "" where it was given as tokens."""

    track: int
    text: str = ""
    observed: list[Observed] = field(default_factory=list)
    executed: list[Executed] = field(default_factory=list)

    @property
    def begin_ns(self) -> int:
        return min([o.time_ns for o in self.observed[:1]] + [e.time_ns for e in self.executed[:1]])


class _Reader:
    def __init__(self, log: Log, control: bool):
        self.log, self.control = log, control
        self.names = [log.plan.values[s.value].name for s in log.plan.sources]
        self.stages = [s.name for s in log.plan.stages]
        self.sources: dict[str, np.ndarray] = {}
        self.fresh: set[str] = set()
        self.text = ""
        self.episodes: list[EpisodeLine] = []

    def read(self, events: list[Event]) -> list[EpisodeLine]:
        self.begin(events[0].track)
        for event in events:
            match event.kind:
                case "source":
                    self.source(event)
                case "text":
                    self.text = event.text
                    self.episodes[-1].text = self.text
                case "step":
                    self.step(event)
                case "pop" if event.role == "control" or not self.control:
                    self.pop(event)
                case "reset" if not self.control:
                    self.begin(event.track)
                case "cancel" if event.number("index") == CANCEL_EPISODE:
                    self.begin(event.track)
        return [e for e in self.episodes if e.observed or e.executed]

    def begin(self, track: int) -> None:
        self.episodes.append(EpisodeLine(track, self.text))

    def source(self, event: Event) -> None:
        name = self.names[int(event.number("source"))]
        if event.has("full"):
            self.sources = self.sources | {name: self.log.content(event)}
        if not event.has("keyframe"):
            self.fresh.add(name)

    def step(self, event: Event) -> None:
        action, chunk = self.log.plan.action, event.chunk
        ran = {self.stages[i]: float(row["ns"]) / 1e6 for i, row in enumerate(event.stages) if row["ran"]}
        self.episodes[-1].observed.append(Observed(
            event.time_ns - int(event.number("ns")), event.time_ns, int(event.number("observation")),
            status_name(event.fields["status"]), self.sources, frozenset(self.fresh),
            None if chunk is None or action is None else chunk.reshape(action.chunk_steps, action.action_dim), ran))
        self.fresh = set()

    def pop(self, event: Event) -> None:
        status = status_name(event.fields["status"])
        last, rows = int(event.number("row")), int(event.number("rows"))
        for i, action in enumerate(event.actions if status in ACTED else ()):
            self.episodes[-1].executed.append(Executed(
                event.time_ns, action, status, int(event.number("observation")), int(event.number("chunk")),
                max(0, last - rows + 1 + i)))


def episodes(log: Log) -> list[EpisodeLine]:
    """Of all sessions, in the order of their beginning. A session of a lane is none by itself: what it observed goes
    with the control loop's."""
    tracks = by_track(log)
    controls = sessions_of(tracks)
    found: list[EpisodeLine] = []
    for track, events in tracks.items():
        if track in controls:
            both = sorted(events + tracks[controls[track]], key=lambda e: e.time_ns)
            found += _Reader(log, control=True).read(both)
        elif (events[0].role == "session" and events[0].lane in (0, CONTROL_OPTION)
              and track not in controls.values()):
            found += _Reader(log, control=False).read(events)
    return sorted(found, key=lambda e: e.begin_ns)


def tick_ns(lines: list[EpisodeLine]) -> int:
    """Time from one executed action to the next: the median; 0 where fewer than two were executed."""
    gaps = [b.time_ns - a.time_ns for line in lines for a, b in zip(line.executed, line.executed[1:], strict=False)]
    return int(np.median(gaps)) if gaps else 0


def cameras(log: Log) -> dict[str, tuple[int, int]]:
    """{source that holds images: (height, width)}: u8 [..., H, W, 3], or with one channel."""
    found = {}
    for source in log.plan.sources:
        value = log.plan.values[source.value]
        dims = value.type.dims
        if value.type.dtype == "u8" and len(dims) >= 3 and dims[-1] in (1, 3) and min(dims[-3:-1]) >= 2:
            found[value.name] = (dims[-3], dims[-2])
    return found


def picture(array: np.ndarray) -> np.ndarray:
    """The newest image of a camera's source: u8[H, W, 3]."""
    image = array.reshape((-1, *array.shape[-3:]))[-1]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
