"""Replays a recording: the same calls with the same content on sessions of a bundle, and compares, bit for bit, every
chunk and every action with what was recorded.

What depended on time then (a deadline that passed before a stage, a chunk that came at a tick) is made to happen where
it happened. Must not know how differences are shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlart.bundle.format.layout import NONE
from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError, RuntimeFailure
from vlart.recording.compared import Difference, Values, first_difference
from vlart.recording.log import Event, Log
from vlart.runtime.library import libvlart
from vlart.runtime.option_checks import ACCEPT
from vlart.runtime.session import Session

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

AGAIN, EPISODE, FRESH = 0, 1, 2  # why a keyframe was recorded: to go on from, or at a beginning
# Statuses of a step that say when it was cut rather than what it computed; and of one before anything ran.
CUT = ("DEADLINE_MISSED", "CANCELLED", "BACKEND_FAILED")
REFUSED = ("SOURCE_UNSET", "STALE_INPUT", "LANE_STALE")
ACTED = ("OK", "DEADLINE_MISSED", "SAFE_ACTION")


def status_name(number: object) -> str:
    name: bytes = libvlart().vlart_status_name(number)
    return name.decode()


@dataclass
class Tally:
    """What was compared. steps: replayed. chunks, actions: compared with recorded ones. skipped: events before the
    first place at which a replay can begin, and behind a loss up to the next. parted: the first difference."""

    steps: int = 0
    chunks: int = 0
    actions: int = 0
    skipped: int = 0
    parted: Difference | None = None

    def add(self, other: Tally) -> None:
        self.steps += other.steps
        self.chunks += other.chunks
        self.actions += other.actions
        self.skipped += other.skipped
        if self.parted is None or (other.parted is not None and other.parted.time_ns < self.parted.time_ns):
            self.parted = other.parted or self.parted


@dataclass
class Player:
    """Plays the events of one session. beside: another session that gets the same calls; after each step all values of
    both are compared, in the order in which stages compute them."""

    session: Session
    beside: Session | None
    log: Log
    tally: Tally = field(default_factory=Tally)
    steps: int = 0
    _known: dict[int, np.ndarray] = field(default_factory=dict)  # of each source, the content that it has
    _chunk_is: bool = False  # the queue holds a chunk that was compared

    def both(self) -> tuple[Session, ...]:
        return (self.session,) if self.beside is None else (self.session, self.beside)

    def play(self, event: Event) -> None:
        """What an event of the session says, apart from keyframes."""
        play = {"source": self._source, "text": self._text, "select": self._select, "step": self.step,
                "observe": self._observe, "pop": self._pop,
                "reset": lambda _: [s.reset() for s in self.both()],
                "invalidate": lambda _: [s.invalidate() for s in self.both()]}.get(event.kind)
        if play is not None:
            play(event)

    def begin(self, why: int, backbone: int, sources: Iterable[Event]) -> None:
        """From a keyframe on."""
        self._known = {}
        for session in self.both():
            session.invalidate()
        self._choose(backbone)
        for event in sources:
            self.play(event)
        if why != AGAIN:  # what a keyframe holds of observations was seen in the last episode
            for session in self.both():
                session.reset()
        self._chunk_is = False

    def written(self, event: Event) -> np.ndarray | None:
        """The content that a source event stands for; None: it was lost."""
        source = int(event.number("source"))
        if event.has("full"):
            self._known[source] = self.log.content(event)
        return self._known.get(source)

    def name(self, source: int) -> str:
        return self.log.plan.values[self.log.plan.sources[source].value].name

    def _source(self, event: Event) -> None:
        array, source = self.written(event), int(event.number("source"))
        if array is not None:
            for session in self.both():
                session.write(self.name(source), array)

    def _text(self, event: Event) -> None:
        name = self.name(int(event.number("index")))
        for session in self.both():  # one that was refused is refused again: the next event says so
            outcome(lambda session=session: session.write_text(name, event.text))

    def _select(self, event: Event) -> None:
        self._choose(int(event.number("index")))

    def _choose(self, backbone: int) -> None:
        if self.log.plan.backbones:
            for session in self.both():
                session.select(self.backbone(backbone))

    def backbone(self, index: int) -> str | None:
        return None if index == NONE else self.log.plan.backbones[index].name

    def prepare(self, event: Event) -> str:
        """Makes the next step or observe end where the recorded one did, and nowhere else for want of time; its
        status."""
        status, number = status_name(event.fields["status"]), int(event.number("status"))
        stop = int(event.number("stop_stage" if event.kind == "step" else "index"))
        for session in self.both():
            at = NONE if stop == NONE else _stage_of(session.plan, self.log.plan.stages[stop].name)
            if status in CUT and at != NONE:
                session.stop_before(at, number)
            else:
                session.stop_before(NONE, number if status in REFUSED else 0)
        return status

    def step(self, event: Event) -> None:
        status = self.prepare(event)
        got = [outcome(lambda s=s: s.step(0)) for s in self.both()]
        self.stepped(event, status, got)

    def stepped(self, event: Event, status: str, got: list[str]) -> None:
        """After a step: its status and its chunk."""
        self.steps += 1
        self.tally.steps += 1
        if self.beside is not None:
            self._compare_values(event)
        if got[0] != status:
            self.part(event, "status of the step", None, status, got[0])
        elif got[-1] != got[0]:
            self.part(event, "status of the step of the two bundles", None, got[0], got[-1])
        want = event.chunk
        if want is None or got[0] != status:
            return
        self.tally.chunks += 1
        self._chunk_is = True
        chunk = self.session.chunk()
        self._compare(event, "the chunk", want.reshape(chunk.shape), chunk)

    def _observe(self, event: Event) -> None:
        status = self.prepare(event)
        got = [outcome(s.observe) for s in self.both()]
        if got[0] != status:
            self.part(event, "status of an observation", None, status, got[0])

    def _pop(self, event: Event) -> None:
        rows = int(event.number("asked"))
        popped = [handed_out(s, rows) for s in self.both()]
        if not self._chunk_is:
            return
        status, actions = popped[0]
        self.compare_pop(event, status, actions)

    def compare_pop(self, event: Event, status: str, actions: np.ndarray) -> None:
        want = status_name(event.fields["status"])
        if want != status and not (self.log.judges_lateness and {want, status} == {"OK", "DEADLINE_MISSED"}):
            self.part(event, "status of a pop", None, want, status)
        elif len(actions):
            self.tally.actions += len(actions)
            self._compare(event, "the action", event.actions, actions)

    def _compare(self, event: Event, what: str, want: np.ndarray, got: np.ndarray) -> None:
        at = first_difference(want, got)
        if at is not None:
            self.part(event, what, at, want[at], got[at])

    def _compare_values(self, event: Event) -> None:
        assert self.beside is not None
        if self.tally.parted is None or not self.tally.parted.of_values:
            found = Values(self.session.plan).part(self.session, self.beside)
            if found is not None:
                self.part(event, *found, of_values=True)

    def part(self, event: Event, what: str, at: tuple[int, ...] | None, want: object, got: object,
              of_values: bool = False) -> None:
        """The first difference; one of a value says more than one of the chunk that was made of it."""
        if self.tally.parted is None or (of_values and not self.tally.parted.of_values):
            self.tally.parted = Difference(what, at, want, got, max(0, self.steps - 1), event.track, event.time_ns,
                                           of_values)


def _stage_of(plan: Plan, name: str) -> int:
    """Its index; NONE: another bundle has no such stage."""
    return next((i for i, s in enumerate(plan.stages) if s.name == name), NONE)


def outcome(call: Callable[[], None]) -> str:
    """The status with which a call of libvlart ends."""
    try:
        call()
    except RuntimeFailure as failure:
        return failure.status
    return "OK"


def handed_out(session: Session, rows: int) -> tuple[str, np.ndarray]:
    try:
        return "OK", session.pop_rows(rows) if rows > 1 else session.pop()[None]
    except RuntimeFailure as failure:
        return failure.status, np.empty((0, 0), np.float32)


def is_memoryless(plan: Plan) -> bool:
    """Whether a chunk depends on nothing but the content of the sources."""
    action = plan.action
    return not plan.histories and not plan.carried and not plan.lanes and (
        action is None or (type(action.consume).__name__ == "Queue" and action.rate_limit is None))


@dataclass(frozen=True)
class Stretch:
    """Events of a track without a loss between them, from a keyframe on. sources: what the keyframe holds."""

    why: int
    backbone: int
    sources: tuple[Event, ...]
    events: tuple[Event, ...]


def stretches(events: Iterable[Event], memoryless: bool) -> tuple[list[Stretch], int]:
    """(the parts of a track that can be replayed, how many events are in none of them)"""
    found: list[Stretch] = []
    skipped, sequence = 0, 0
    rows: list[Event] | None = None
    sources: list[Event] = []
    opened, filling = (0, 0), False

    def end() -> None:
        if rows is not None:
            found.append(Stretch(*opened, tuple(sources), tuple(rows)))

    for event in events:
        if event.sequence != sequence + 1 or (event.kind == "loss" and event.fields["events"]):
            end()
            rows = None
        sequence = event.sequence
        if event.kind == "keyframe":
            why = int(event.number("index"))
            filling = True
            if rows is None and (why in (FRESH, EPISODE) or memoryless):
                opened, sources, rows = (why, int(event.number("number"))), [], []
                continue
        in_keyframe = filling and (event.kind == "text" or (event.kind == "source" and event.has("keyframe")))
        filling = filling and (in_keyframe or event.kind == "keyframe")
        if rows is None:
            skipped += 1
        elif in_keyframe:
            if not rows:
                sources.append(event)
        elif event.kind != "keyframe":
            rows.append(event)
    end()
    return found, skipped


def by_track(log: Log) -> dict[int, list[Event]]:
    """{track: its events}, those of the writer apart."""
    found: dict[int, list[Event]] = defaultdict(list)
    for event in log:
        if event.role != "writer":
            found[event.track].append(event)
    return dict(sorted(found.items()))


@dataclass
class Opened:
    """The sessions of replays, opened once. beside: the bundle that stage values are compared with."""

    bundle: Path
    beside: Path | None
    threads: int = 0
    stand_in: bool = False
    native_code: bool = False
    _open: tuple[Session, Session | None] | None = None

    def sessions(self) -> tuple[Session, Session | None]:
        if self._open is None:
            common = {"threads": self.threads, "stand_in": self.stand_in, "native_code": self.native_code,
                      "accept": tuple(ACCEPT)}
            first = Session(self.bundle, **common)
            self._open = first, None if self.beside is None else Session(self.beside, **common)
        return self._open

    def close(self) -> None:
        for session in self._open or ():
            if session is not None:
                session.close()
        self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_content(log: Log) -> None:
    """Raises BundleError for a recording without the content of the sources."""
    if not log.full:
        raise BundleError("the recording has no content to replay", where=str(log.path),
                          why="it was made of checksums alone, so that what the policy saw is not in it",
                          fix="record with the content: Recorder(FILE), or --record FILE without --record-digests")


def replay_session(log: Log, events: list[Event], opened: Opened) -> Tally:
    """Of a session that was stepped in its own thread."""
    tally = Tally()
    parts, tally.skipped = stretches(events, is_memoryless(log.plan))
    for part in parts:
        first, beside = opened.sessions()
        player = Player(first, beside, log)
        player.begin(part.why, part.backbone, part.sources)
        for event in part.events:
            player.play(event)
        tally.add(player.tally)
    return tally
