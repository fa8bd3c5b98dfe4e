"""Replays lanes: the control loop's calls in their order, and before each of its steps those steps of slower lanes
whose sets it read then.

Lanes hand over whatever is newest; a set that nobody read is made, too, so that a lane's own state is as it was. Where
two lanes read a third one at different times, the order in which sets were read may be one that handing over the newest
does not give: then the replay parts from the recording at that step and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlart.recording.log import Event, Log
from vlart.recording.replay import REFUSED, Opened, Player, Tally, outcome, status_name
from vlart.recording.replay_async import is_whole
from vlart.runtime.lanes import Lane, Lanes
from vlart.runtime.option_checks import ACCEPT
from vlart.runtime.session import CONTROL_OPTION


@dataclass
class Round:
    """What a lane's thread did up to a handover. reads: {lane: step whose set it read}."""

    events: list[Event] = field(default_factory=list)
    step: Event | None = None
    began_episode: bool = False
    status: str = ""
    sequence: int = 0

    @property
    def reads(self) -> tuple[int, ...]:
        lanes = () if self.step is None else self.step.fields["lanes"]
        assert isinstance(lanes, tuple)
        return lanes


def rounds(events: list[Event]) -> list[Round]:
    found, now = [], Round()
    for event in events:
        if event.kind == "handover":
            now.status, now.sequence = status_name(event.fields["status"]), int(event.number("number"))
            found.append(now)
            now = Round()
        elif event.kind == "step":
            now.step = event
        elif event.kind == "reset":
            now.began_episode = True
        elif event.kind in ("text", "select") or (event.kind == "source" and not event.has("keyframe")):
            now.events.append(event)
    return found


@dataclass
class _LaneLine:
    lane: Lane
    player: Player
    left: list[Round]  # not played
    sequence: int = 0


class _Clockwork:
    def __init__(self, lanes: Lanes, control: Player, lines: list[_LaneLine]):
        self.lanes, self.control, self.lines = lanes, control, lines

    def play(self, event: Event) -> None:
        if event.kind == "reset":
            for line in self.lines:
                while line.left and not line.left[0].began_episode:
                    self._round(line)
        if event.kind != "step":
            self.control.play(event)
            return
        if status_name(event.fields["status"]) in REFUSED:
            return
        reads = event.fields["lanes"]
        assert isinstance(reads, tuple)
        for index, wanted in enumerate(reads[:len(self.lines)]):
            self._advance(index, wanted)
        self.control.step(event)
        got = tuple(self.lanes.followed(line).sequence for line in self.lanes.lanes)
        if got != reads[:len(got)]:
            self.control.part(event, "which steps of the lanes were read", None, reads[:len(got)], got)

    def _advance(self, index: int, sequence: int) -> None:
        line = self.lines[index]
        while line.left and line.sequence < sequence:
            self._round(line)

    def _round(self, line: _LaneLine) -> None:
        round_ = line.left.pop(0)
        for index, wanted in enumerate(round_.reads[:len(self.lines)]):
            if self.lines[index] is not line:
                self._advance(index, wanted)
        for event in round_.events:
            line.player.play(event)
        line.sequence = round_.sequence
        if round_.status == "CANCELLED" and not round_.began_episode:
            return  # it handed nothing over
        if round_.step is not None:
            line.player.prepare(round_.step)
        got = outcome(line.lane.step)
        if got != round_.status and round_.step is not None:
            self.control.part(round_.step, "status of a lane's step", None, round_.status, got)


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
    with Lanes(opened.bundle, **options) as lanes:
        played = Player(lanes.control, None, lanes.plan, log.content, tally)
        lines = [_LaneLine(lane, Player(lane.session, None, lanes.plan, log.content), rounds(events))
                 for lane, events in zip(lanes.lanes.values(), slower, strict=True)]
        clockwork = _Clockwork(lanes, played, lines)
        for event in control:
            clockwork.play(event)
    return tally
