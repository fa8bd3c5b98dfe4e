"""Which parts of a recording of asynchronous control can be replayed: from its first event, or from an episode that is
whole in both tracks, up to where one of them lacks something.

Must not know how they are replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vlart.recording.log import Event
from vlart.recording.replay import FRESH, status_name

CANCEL_EPISODE = 2


@dataclass
class Answer:
    """What the worker did for a request: events from taking its observation to the next. step: None where it did not
    get that far."""

    taken: Event
    events: list[Event] = field(default_factory=list)
    step: Event | None = None
    begins_episode: bool = False


@dataclass(frozen=True)
class Worked:
    """A part of the session's track without a gap. fresh: it begins with the session. before: its events before the
    first observation was taken. answers: {request: what was made of it}."""

    fresh: bool
    before: list[Event]
    answers: dict[int, Answer]


@dataclass(frozen=True)
class AsyncStretch:
    """control: events of the control thread. worked: of its session. whole: from their first events on."""

    control: list[Event]
    worked: Worked
    whole: bool

    @property
    def requests(self) -> list[int]:
        return [int(e.number("number")) for e in self.control if is_handed_over(e)]

    @property
    def count(self) -> int:
        """Events of both tracks that are in it."""
        answered = [self.worked.answers[r] for r in self.requests if r in self.worked.answers]
        return len(self.control) + sum(1 + len(a.events) for a in answered) + len(self.worked.before) * self.whole


def is_handed_over(event: Event) -> bool:
    """Whether an event is a request whose observation the worker got."""
    return event.kind == "request" and status_name(event.fields["status"]) == "OK"


def is_loss(event: Event) -> bool:
    return event.kind == "loss" and bool(event.fields["events"])


def is_whole(events: list[Event]) -> bool:
    """Whether a track is there from its first event on, without a loss."""
    return all(e.sequence == i + 1 and not is_loss(e) for i, e in enumerate(events))


def runs(events: Iterable[Event]) -> list[list[Event]]:
    """A track, cut where something is missing."""
    found: list[list[Event]] = []
    sequence = -1
    for event in events:
        if event.sequence != sequence + 1 or is_loss(event):
            found.append([])
        sequence = event.sequence
        if not is_loss(event):
            found[-1].append(event)
    return [run for run in found if run]


def worked(events: list[Event]) -> Worked:
    """Of a part without a gap. An answer whose step is not in it is left out."""
    fresh = events[0].sequence == 1 and events[0].kind == "keyframe" and events[0].number("index") == FRESH
    found, now = Worked(fresh, [], {}), None
    for event in events:
        if event.kind == "take":
            now = found.answers[int(event.number("number"))] = Answer(event)
        elif now is None:
            found.before.append(event)
        else:
            now.events.append(event)
            now.step = event if event.kind == "step" else now.step
            now.begins_episode = now.begins_episode or event.kind == "reset"
    for request in [r for r, a in found.answers.items() if a.step is None]:
        del found.answers[request]
    return found


def async_stretches(control: list[Event], session: list[Event]) -> list[AsyncStretch]:
    """control: the control thread's track; session: of the session that its worker steps."""
    parts = [worked(run) for run in runs(session)]
    found = []
    for run in runs(control):
        at = 0
        while (begun := _begin(run, at, parts)) is not None:
            begins, part, whole = begun
            at = _end(run, begins, part)
            found.append(AsyncStretch(run[begins:at], part, whole))
    return found


def _begin(run: list[Event], at: int, parts: list[Worked]) -> tuple[int, Worked, bool] | None:
    """(index of an event from which on everything is known, the session's part, whether it is the first of all)"""
    if at == 0 and run[0].sequence == 1 and parts and parts[0].fresh:
        return 0, parts[0], True
    for i in range(at, len(run)):
        if run[i].kind == "cancel" and run[i].number("index") == CANCEL_EPISODE:
            of_episode = _requests_until_cancel(run[i + 1:])
            for part in parts:
                if any(r in part.answers and part.answers[r].begins_episode for r in of_episode):
                    return (i - 1 if i > at and run[i - 1].kind == "control" else i), part, False
    return None


def _requests_until_cancel(events: list[Event]) -> list[int]:
    found = []
    for event in events:
        if event.kind == "cancel" and event.number("index") == CANCEL_EPISODE:
            break
        if is_handed_over(event):
            found.append(int(event.number("number")))
    return found


def _end(run: list[Event], begins: int, part: Worked) -> int:
    """Index of the first event behind: a result that came, of which the session's track does not tell."""
    asked: set[int] = set()
    for i in range(begins, len(run)):
        if is_handed_over(run[i]):
            asked.add(int(run[i].number("number")))
        if run[i].kind == "result" and run[i].number("number") in asked - part.answers.keys():
            return i
    return len(run)
