"""Replays asynchronous control: the control thread's calls in their order, and each chunk when it came then.

The worker's part is computed in the calling thread. A request is computed when its chunk was taken, or before the next
request takes its place, or before it is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vlart.errors import RuntimeFailure
from vlart.recording.log import Event, Log
from vlart.recording.replay import FRESH, Opened, Player, Tally, status_name
from vlart.runtime.async_session import ANSWERED, AsyncSession
from vlart.runtime.option_checks import ACCEPT

SAFE = ("hold", "zero")
EXPIRE = ("time", "execution")
CANCEL = ("keep", "drop", "episode")
CANCEL_EPISODE = 2


@dataclass
class Answer:
    """What the worker did for a request: events from taking its observation to the next. step: None where it did not
    get that far."""

    events: list[Event] = field(default_factory=list)
    step: Event | None = None


@dataclass(frozen=True)
class Worked:
    """before: events of the session before the first request. answers: {request: what was made of it}."""

    before: list[Event]
    answers: dict[int, Answer]


def worked(events: Iterable[Event]) -> Worked:
    found, now = Worked([], {}), None
    for event in events:
        if event.kind == "take":
            now = found.answers[int(event.number("number"))] = Answer()
        elif now is None:
            found.before.append(event)
        else:
            now.events.append(event)
            now.step = event if event.kind == "step" else now.step
    return found


def is_whole(events: list[Event]) -> bool:
    """Whether a track is there from its first event on, without a loss."""
    return all(e.sequence == i + 1 and not (e.kind == "loss" and e.fields["events"]) for i, e in enumerate(events))


def options_of(event: Event) -> dict:
    """Of a control event, as AsyncSession takes them."""
    safe = int(event.number("safe"))
    return {"lead_ticks": int(event.number("lead_ticks")), "stale_ticks": int(event.number("stale_ticks")),
            "deadline_ticks": int(event.number("deadline_ticks")), "expire": EXPIRE[int(event.number("expire"))],
            "safe": SAFE[safe] if safe < len(SAFE) else np.frombuffer(event.rest, "<f4")}


class _Robot:
    """One asynchronous session and what it has computed."""

    def __init__(self, control: AsyncSession, player: Player, answers: dict[int, Answer]):
        self.control, self.player, self.answers = control, player, answers
        self.waiting: int | None = None  # the newest request, if the worker took it and it is not computed
        self.held: int | None = None  # computed, not delivered

    def play(self, event: Event) -> None:
        play = {"request": self._request, "result": self._result, "pop": self._pop,
                "select": lambda e: self.control.select(self._backbone(e)),
                "cancel": self._cancel}.get(event.kind)
        if play is not None:
            play(event)

    def _backbone(self, event: Event) -> str | None:
        backbones, index = self.player.plan.backbones, int(event.number("index"))
        return backbones[index].name if index < len(backbones) else None

    def _request(self, event: Event) -> None:
        if status_name(event.fields["status"]) != "OK":
            return  # nothing was handed over
        self._compute()
        request = int(event.number("number"))
        if request in self.answers:
            for e in self.answers[request].events:
                if e.kind == "source" and not e.has("keyframe"):
                    self._write(e)
            self.waiting = request
        self.control.request()

    def _cancel(self, event: Event) -> None:
        self._compute()  # a step that the cancellation did not reach ended as it does without it
        self.control.cancel(CANCEL[int(event.number("index"))])

    def _write(self, event: Event) -> None:
        array = self.player.written(event)
        if array is not None:
            self.control.write(self.player.name(int(event.number("source"))), array)

    def _compute(self) -> None:
        if self.waiting is None:
            return
        answer, step = self.answers[self.waiting], None
        if answer.step is not None:
            step = answer.step
            status = self.player.prepare(step)
        self.control.compute()
        self.held, self.waiting = self.waiting, None
        if step is not None and status != "CANCELLED":
            self.player.stepped(step, status, [status])

    def _result(self, event: Event) -> None:
        request = int(event.number("number"))
        if self.waiting == request:
            self._compute()
        if self.held == request:
            self.control.deliver()
            self.held = None
            self.control.info()

    def _pop(self, event: Event) -> None:
        try:
            popped = self.control.pop()
            status, action = popped.status, popped.action[None]
        except RuntimeFailure as failure:
            status, action = failure.status, np.empty((0, 0), np.float32)
        assert status in ANSWERED.values() or status == "QUEUE_EMPTY", status
        self.player.compare_pop(event, status, action)


def replay_async(log: Log, control: list[Event], session: list[Event], opened: Opened) -> Tally:
    """control: of the control thread's track; session: of the session that its worker steps. What is replayed begins
    with the first event, or, where that was overwritten, with the first episode that is whole."""
    begins = _begin(control, session)
    if begins is None:
        return Tally(skipped=len(control) + len(session))
    tally = Tally(skipped=begins)
    play = control[begins:]
    options = next((options_of(e) for e in play if e.kind == "control"), {})
    told = worked(session)
    robot = AsyncSession(opened.bundle, threads=opened.threads, accept=tuple(ACCEPT), native_code=opened.native_code,
                         **options)
    beside = None
    try:
        player = Player(robot.session, beside, robot.plan, log.content, tally)
        if begins == 0:
            for event in told.before:
                player.play(event)
        else:
            _fill(player, session, play, told)
        playing = _Robot(robot, player, told.answers)
        for event in play:
            playing.play(event)
    finally:
        robot.close()
    return tally


def _begin(control: list[Event], session: list[Event]) -> int | None:
    """Index of the first event of the control thread from which on nothing is missing."""
    if is_whole(control) and is_whole(session) and session[0].kind == "keyframe" \
            and session[0].number("index") == FRESH:
        return 0
    gap = max((i for i in range(1, len(control)) if control[i].sequence != control[i - 1].sequence + 1
               or control[i].kind == "loss"), default=0)
    resets = _whole_episodes(session)
    for i in range(gap, len(control)):
        event = control[i]
        if event.kind == "cancel" and event.number("index") == CANCEL_EPISODE:
            requests = (int(e.number("number")) for e in control[i:] if e.kind == "request" and e.fields["number"])
            if next((r for r in requests if r in resets), None) is not None:
                return i - 1 if i > gap and control[i - 1].kind == "control" else i
    return None


def _whole_episodes(session: list[Event]) -> set[int]:
    """Requests with which an episode began, behind the last loss."""
    found: set[int] = set()
    request = 0
    for i, event in enumerate(session):
        if (i and event.sequence != session[i - 1].sequence + 1) or event.kind == "loss":
            found.clear()
        if event.kind == "take":
            request = int(event.number("number"))
        if event.kind == "reset" and request:
            found.add(request)
    return found


def _fill(player: Player, session: list[Event], play: list[Event], told: Worked) -> None:
    """The content of all sources as the keyframe of the first episode has it."""
    first = next(int(e.number("number")) for e in play if e.kind == "request" and int(e.number("number"))
                 in told.answers)
    for event in told.answers[first].events:
        if event.kind == "source" and event.has("keyframe"):
            player.play(event)


def sessions_of(tracks: dict[int, list[Event]]) -> dict[int, int]:
    """{track of a control thread: track of its session}: the one before it that answers requests."""
    answering = [t for t, events in tracks.items() if any(e.kind == "take" for e in events)]
    found: dict[int, int] = {}
    for track, events in tracks.items():
        if events[0].role == "control":
            of = [t for t in answering if t < track and t not in found.values()]
            if of:
                found[track] = of[-1]
    return found
