"""Replays lanes: the control loop's calls in their order, and before each of its steps those steps of slower lanes
whose sets it read then.

Lanes hand over whatever is newest. The sets that matter form a tree: those of a lane are taken by one session alone,
the next one that reads it or, with it, a third one (whoever is faster takes that session's sets, which carry both). So
a lane is stepped when the one that reads it needs its set, and no two of them can ask for it at different times. A set
that nobody read is made, too, so that a lane's own state is as it was.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from vlart.bundle.plan.plan import Plan
from vlart.recording.async_stretches import is_whole
from vlart.recording.log import Event, Log
from vlart.recording.replay import Opened, Player, Tally, outcome, status_name
from vlart.runtime.lanes import Lane, Lanes
from vlart.runtime.option_checks import ACCEPT
from vlart.runtime.session import CONTROL_OPTION
from vlart.vocabulary import UPDATES


@dataclass
class Round:
    """What a lane's thread did up to a handover. reads: {lane: step whose set it read}. episode: of the lane, counted;
    in a recording of version 1.0 by the beginnings that it noticed."""

    events: list[Event] = field(default_factory=list)
    step: Event | None = None
    began_episode: bool = False
    handover: Event | None = None
    episode: int = 0

    @property
    def reads(self) -> tuple[int, ...]:
        lanes = () if self.step is None else self.step.fields["lanes"]
        assert isinstance(lanes, tuple)
        return lanes


def rounds(events: list[Event], counted: bool) -> list[Round]:
    """counted: the recording says the episode of each."""
    found, now, episode = [], Round(), 0
    for event in events:
        if event.kind == "handover":
            now.handover, now.episode = event, int(event.number("tick")) if counted else episode
            found.append(now)
            now = Round()
        elif event.kind == "step":
            now.step = event
        elif event.kind == "reset":
            now.began_episode = True
            episode += 1
        elif event.kind in ("text", "select") or (event.kind == "source" and not event.has("keyframe")):
            now.events.append(event)
    return found


def carried(plan: Plan, lane: int) -> frozenset[int]:
    """The lanes whose parts the sets of a lane have: those up to it that read each other, also by way of others."""
    own = {s: i for i, slower in enumerate(plan.lanes) for s in slower.sources}
    read: list[set[int]] = [set() for _ in range(lane + 1)]
    for stage in plan.stages:
        if (of := plan.lane_of(stage)) <= lane:
            read[of] |= {own[s] for s in stage.depends if s in own} - {of}
    found, before = {lane}, set[int]()
    while before != found:
        before = set(found)
        for k, others in enumerate(read):
            if found & (others | {k}):
                found |= others | {k}
    return frozenset(found)


def is_observing(plan: Plan, lane: int) -> bool:
    """Whether a lane has observations, of its own or by way of a slower one: then an episode begins there, too."""
    values = {s for slower in plan.lanes[:lane + 1] for s in slower.sources}
    return any(UPDATES[s.update] >= UPDATES["observation"] for s in plan.sources if s.value in values)


@dataclass
class _LaneLine:
    """lanes: the lane, and another bundle's that gets the same calls. left: not played. reads: the lanes whose sets
    matter to it. sequence: of its newest set."""

    lanes: tuple[Lane, ...]
    player: Player
    left: list[Round]
    reads: frozenset[int]
    observing: bool
    sequence: int = 0


class _Clockwork:
    def __init__(self, lanes: Lanes, control: Player, lines: list[_LaneLine]):
        self.lanes, self.control, self.lines = lanes, control, lines
        self.episode = 0

    def play(self, event: Event) -> None:
        if event.kind == "reset":
            self._end_episode()
        if event.kind != "step":
            self.control.play(event)
            return
        reads = event.fields["lanes"]
        assert isinstance(reads, tuple)
        self._advance(reads[:len(self.lines)], frozenset(range(len(self.lines))))
        self.control.step(event)
        got = tuple(self.lanes.followed(line).sequence for line in self.lanes.lanes)
        if got != reads[:len(got)]:
            self.control.part(event, "which steps of the lanes were read", None, reads[:len(got)], got)

    def end(self) -> None:
        """What the lanes did behind the last step that read them."""
        for line in reversed(self.lines):
            while line.left and line.left[0].episode <= self.episode:
                self._round(line)

    def _end_episode(self) -> None:
        """What the lanes did before they saw that another one began. A faster one first: it says what it read."""
        for line in reversed(self.lines):
            while line.observing and line.left and line.left[0].episode <= self.episode:
                self._round(line)
        self.episode += 1

    def _advance(self, wanted: tuple[int, ...], of: frozenset[int]) -> None:
        """Steps these lanes until they have handed over these sets; the faster first, whose sets carry slower ones'."""
        for index in sorted(of, reverse=True):
            line = self.lines[index]
            while index < len(wanted) and line.left and line.sequence < wanted[index]:
                self._round(line)

    def _round(self, line: _LaneLine) -> None:
        round_ = line.left.pop(0)
        self._advance(round_.reads[:len(self.lines)], line.reads)
        for event in round_.events:
            line.player.play(event)
        assert round_.handover is not None
        status, ran = status_name(round_.handover.fields["status"]), None
        line.sequence = int(round_.handover.number("number"))
        if round_.step is not None:
            ran = line.player.prepare(round_.step)
        if ran == "OK" and status == "CANCELLED":  # behind its last stage: nothing was handed over
            got = [outcome(lambda lane=lane: lane.session.step(0)) for lane in line.lanes]
            status = "OK"
        else:
            got = [outcome(lane.step) for lane in line.lanes]
        if round_.step is not None:
            line.player.stepped(round_.step, status, got)
        elif got[0] != status:
            self.control.part(round_.handover, "status of a lane's step", None, status, got[0])


def groups(tracks: dict[int, list[Event]]) -> dict[int, list[int]]:
    """{track of a control loop with lanes: the tracks of its lanes, from slow to fast}"""
    found: dict[int, list[int]] = {}
    control = None
    for track, events in tracks.items():
        if events[0].role == "session" and events[0].lane == CONTROL_OPTION:
            control = track
            found[track] = []
        elif events[0].role == "session" and events[0].lane and control is not None:
            found[control].append(track)
    return found


def replay_lanes(log: Log, control: list[Event], slower: list[list[Event]], opened: Opened) -> Tally:
    """control, slower: whole tracks, of the control loop and of its lanes; where something is missing nothing is
    replayed."""
    tally = Tally()
    if not all(map(is_whole, (control, *slower))) or len(slower) != len(log.plan.lanes):
        tally.skipped = sum(map(len, (control, *slower)))
        return tally
    options = {"threads": opened.threads, "stand_in": opened.stand_in, "native_code": opened.native_code,
               "accept": tuple(ACCEPT)}
    with ExitStack() as open_:
        first, *more = (open_.enter_context(Lanes(path, **options)) for path in (opened.bundle, opened.beside) if path)
        beside = more[0] if more else None
        lines = []
        for i, (name, events) in enumerate(zip(first.lanes, slower, strict=True)):
            lanes = tuple(each.lanes[name] for each in (first, *more))
            player = Player(lanes[0].session, lanes[1].session if more else None, log)
            counted = log.info.version_minor > 0
            lines.append(_LaneLine(lanes, player, rounds(events, counted), carried(log.plan, i) - {i},
                                   is_observing(log.plan, i)))
        clockwork = _Clockwork(first, Player(first.control, beside and beside.control, log, tally), lines)
        for event in control:
            clockwork.play(event)
        clockwork.end()
    for line in lines:
        if line.player.tally.parted is not None:
            tally.add(Tally(parted=line.player.tally.parted))
    return tally
