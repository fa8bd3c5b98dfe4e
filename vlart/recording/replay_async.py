"""Replays asynchronous control.

The control thread's actions follow from its calls, their order, and which result each call found; the worker's chunks
from the observations that it took, their order, and where a step was cut. The two tracks say exactly that, so that a
replay needs no clock: it makes the control thread's calls in their order, and computes a request when its result was
taken, or before another request takes its place. A result that was computed and not taken by then is handed over first:
the worker had given it before it took the next observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from vlart.errors import RuntimeFailure
from vlart.recording.async_stretches import AsyncStretch, async_stretches, is_handed_over
from vlart.recording.log import Event, Log
from vlart.recording.replay import Opened, Player, Tally, status_name
from vlart.runtime.async_session import AsyncSession
from vlart.runtime.option_checks import ACCEPT

SAFE = ("hold", "zero")
T = TypeVar("T")
EXPIRE = ("time", "execution")
CANCEL = ("keep", "drop", "episode")


def options_of(event: Event) -> dict:
    """Of a control event, as AsyncSession takes them."""
    safe = int(event.number("safe"))
    return {"lead_ticks": int(event.number("lead_ticks")), "stale_ticks": int(event.number("stale_ticks")),
            "deadline_ticks": int(event.number("deadline_ticks")), "expire": EXPIRE[int(event.number("expire"))],
            "safe": SAFE[safe] if safe < len(SAFE) else np.frombuffer(event.rest, "<f4")}


@dataclass
class _Robot:
    """controls: the asynchronous session, and one that gets the same calls. waiting: the newest request, if the worker
    took it and it is not computed. held: computed, not handed over."""

    controls: tuple[AsyncSession, ...]
    player: Player
    stretch: AsyncStretch
    waiting: int | None = None
    held: int | None = None
    discarded: int = 0  # results, before the newest one was handed over
    chunks_before: int = 0  # good ones before the stretch
    taken: set[int] = field(init=False)  # requests whose results the control thread took

    def __post_init__(self) -> None:
        self.taken = {int(e.number("number")) for e in self.stretch.control if e.kind == "result"}

    def play(self, event: Event) -> None:
        play = {"request": self._request, "result": self._result, "pop": self._pop, "select": self._select,
                "cancel": self._cancel}.get(event.kind)
        if play is not None:
            play(event)

    def end(self) -> None:
        """What was asked and computed, and came too late for any call."""
        self._compute()

    def _select(self, event: Event) -> None:
        for control in self.controls:
            control.select(self.player.backbone(int(event.number("index"))))

    def _request(self, event: Event) -> None:
        if not is_handed_over(event):
            return
        self._compute()
        answer = self.stretch.worked.answers.get(int(event.number("number")))
        if answer is not None:
            for e in answer.events:
                if e.kind == "source" and not e.has("keyframe"):
                    self._write(e)
            self.waiting = int(event.number("number"))
        for control in self.controls:
            control.request()

    def _cancel(self, event: Event) -> None:
        for control in self.controls:
            control.cancel(CANCEL[int(event.number("index"))])

    def _write(self, event: Event) -> None:
        array = self.player.written(event)
        if array is not None:
            for control in self.controls:
                control.write(self.player.name(int(event.number("source"))), array)

    def _compute(self) -> None:
        if self.waiting is None:
            return
        if self.held in self.taken:
            self._deliver()
        answer = self.stretch.worked.answers[self.waiting]
        assert answer.step is not None, "an answer without a step is left out"
        status = self.player.prepare(answer.step)
        before = self.player.session.queue().chunks
        for control in self.controls:
            control.compute()
        self.held, self.waiting = self.waiting, None
        made, wanted = self.player.session.queue().chunks > before, answer.step.chunk is not None
        self.player.stepped(answer.step, status, [status if made == wanted else "OK" if made else "no chunk"])

    def _deliver(self) -> None:
        self.discarded = self.controls[0].info().discarded
        for control in self.controls:
            control.deliver()
        self.held = None

    def _result(self, event: Event) -> None:
        request = int(event.number("number"))
        if self.waiting == request:
            self._compute()
        if self.held == request:
            self._deliver()
        found = first_of(control.info() for control in self.controls)
        if request in self.stretch.requests and found.discarded == self.discarded and \
                found.status != event.number("status"):
            self.player.part(event, "status of a result", None, status_name(event.fields["status"]),
                             status_name(found.status))

    def _pop(self, event: Event) -> None:
        status, action, row = first_of(_popped(control) for control in self.controls)
        self.player.compare_pop(event, status, action)
        if status not in ("OK", "DEADLINE_MISSED") or status_name(event.fields["status"]) != status:
            return
        want, got = (int(event.number("chunk")), int(event.number("row"))), (self.controls[0].info().chunks, row)
        if not self.stretch.whole and not self.chunks_before:
            self.chunks_before = want[0] - got[0]
        if want != (got[0] + self.chunks_before, got[1]):
            self.player.part(event, "the chunk and row of the action", None, want, got)


def first_of(results: Iterable[T]) -> T:
    """All are made; the first is compared."""
    first, *_ = results
    return first


def _popped(control: AsyncSession) -> tuple[str, np.ndarray, int]:
    """(status, actions [rows, dim], row in its chunk)"""
    try:
        popped = control.pop()
    except RuntimeFailure as failure:
        return failure.status, np.empty((0, 0), np.float32), 0
    return popped.status, popped.action[None], popped.row


def replay_async(log: Log, control: list[Event], session: list[Event], opened: Opened) -> Tally:
    """control: of the control thread's track; session: of the session that its worker steps. What is replayed begins
    with the first event, or with an episode that is whole, also behind a gap."""
    tally = Tally(skipped=len(control) + len(session))
    for stretch in async_stretches(control, session):
        tally.skipped -= stretch.count
        _replay(log, stretch, opened, tally)
    return tally


def _replay(log: Log, stretch: AsyncStretch, opened: Opened, tally: Tally) -> None:
    options = next((options_of(e) for e in stretch.control if e.kind == "control"), {})
    with ExitStack() as open_:
        controls = tuple(_opened(path, open_, opened, options) for path in (opened.bundle, opened.beside) if path)
        first, *more = (control.session for control in controls)
        player = Player(first, more[0] if more else None, log, tally)
        robot = _Robot(controls, player, stretch)
        if stretch.whole:
            for event in stretch.worked.before:
                player.play(event)
        else:
            _fill(robot)
        for event in stretch.control:
            robot.play(event)
        robot.end()


def _opened(path: Path, open_: ExitStack, opened: Opened, options: dict) -> AsyncSession:
    control = AsyncSession(path, threads=opened.threads, accept=tuple(ACCEPT), native_code=opened.native_code,
                           **options)
    open_.callback(control.close)
    return control


def _fill(robot: _Robot) -> None:
    """The content of all sources as the keyframe of the first episode has it, and the backbone of its first step."""
    answers, player = robot.stretch.worked.answers, robot.player
    first = next(answers[r] for r in robot.stretch.requests if r in answers)
    for event in first.events:
        if event.kind == "source" and event.has("keyframe"):
            player.play(event)
    if player.log.plan.backbones and first.step is not None:
        for control in robot.controls:
            control.select(player.backbone(int(first.step.number("backbone"))))


def sessions_of(tracks: dict[int, list[Event]]) -> dict[int, int]:
    """{track of a control thread: track of its session}: the one that it names, or, in a recording of version 1.0,
    the one before it that answers requests."""
    answering = [t for t, events in tracks.items() if any(e.kind == "take" for e in events)]
    found: dict[int, int] = {}
    for track, events in tracks.items():
        if events[0].role == "control":
            named = events[0].lane - 1
            of = [t for t in answering if t < track and t not in found.values()]
            if named in tracks or (named < 0 and of):
                found[track] = named if named >= 0 else of[-1]
    return found
