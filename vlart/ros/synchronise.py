"""`Synchroniser`: messages of several topics, with their times -> observations. Approximate: by nearest times.

The rule. Each message of the reference begins an observation of its time t. Every other input takes part with the
message whose time is nearest to t, the earlier of two, at most `within_ms` away. The observation is complete once no
message that comes in order could be nearer: when every other input has one of time t or later, or `wait_ms` after the
reference's message came. What then lacks an input is refused. Of complete ones the newest counts, and never one that is
older than the last that was taken. Of each input at most MOST_KEPT messages are kept, the newest ones.

Times are in nanoseconds of the clock that stamps the messages; the caller says what it shows. Must not know what the
contents are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlart.ros.account import Account
from vlart.ros.mapping import Synchronise, Topic

MS = 1_000_000
BACK_NS = 20 * MS  # a clock that goes further back has jumped
MOST_KEPT = 1024  # messages of an input, of however long a time


@dataclass(frozen=True)
class Observation:
    """time_ns: of the reference's message. contents: {input: content}. apart_ns: {input: its message's time - time_ns}.
    """

    time_ns: int
    contents: Mapping[str, Any]
    apart_ns: Mapping[str, int]


@dataclass
class _Kept:
    time_ns: int
    came_ns: int
    content: Any
    used: bool = False


class Synchroniser:
    """To be used by one thread at a time."""

    def __init__(self, topics: Mapping[str, Topic], how: Synchronise):
        self.how = how
        self.accounts = {name: Account() for name in topics}
        self._within = {n: round(MS * (how.within_ms if t.within_ms is None else t.within_ms))
                        for n, t in topics.items() if n != how.reference}
        self._kept: dict[str, list[_Kept]] = {name: [] for name in topics}  # by time
        self.jumps = 0  # of the clock
        self._taken_ns: int | None = None
        self._now_ns = 0

    def add(self, name: str, time_ns: int, content: Any, now_ns: int) -> str | None:
        """A message that came now. None: it is kept. Otherwise why it is not, a key of its account: it was refused, or
        is "superseded"."""
        now_ns = self.tell(now_ns)
        self._newest(now_ns)  # what waited long enough is refused before, whoever asks when
        account, kept = self.accounts[name], self._kept[name]
        account.received += 1
        why = self._unfit(name, time_ns, now_ns)
        if why == "superseded":
            account.superseded += 1
        elif why is not None:
            account.refuse(why, _said(why, time_ns, now_ns))
        else:
            kept.insert(_place(kept, time_ns), _Kept(time_ns, now_ns, content))
            self._drop(name, max(0, len(kept) - MOST_KEPT))
            self._newest(now_ns)
        return why

    def refuse(self, name: str, why: str, said: str) -> None:
        """A message that came, and is refused for what it is. said: in words."""
        self.accounts[name].received += 1
        self.accounts[name].refuse(why, said)

    def take(self, now_ns: int) -> Observation | None:
        """The newest complete observation, if it was not taken yet."""
        found = self._newest(self.tell(now_ns))
        if found is None:
            return None
        reference = found[self.how.reference]
        for name, kept in found.items():
            self.accounts[name].used += not kept.used
            kept.used = True
        self._taken_ns = reference.time_ns
        self._drop(self.how.reference, 1)
        for name, within in self._within.items():
            self._drop(name, _place(self._kept[name], reference.time_ns - within))
        return Observation(reference.time_ns, {n: k.content for n, k in found.items()},
                           {n: k.time_ns - reference.time_ns for n, k in found.items()})

    def clock_jumped(self, now_ns: int) -> None:
        """The clock shows another time than it should: what waits was stamped by what it showed before."""
        self.forget("clock jumped", "the clock jumped while it waited")
        self._now_ns = now_ns
        self.jumps += 1

    def forget(self, why: str = "episode ended", said: str = "the episode ended while it waited") -> None:
        """What waits is refused, and what was taken counts no more."""
        for name, kept in self._kept.items():
            count = sum(not k.used for k in kept)
            if count:
                self.accounts[name].refuse(why, said, count)
            kept.clear()
        self._taken_ns = None

    def tell(self, now_ns: int) -> int:
        """What the clock shows. Returns the latest that it did: threads may come in another order than they asked."""
        if now_ns < self._now_ns - BACK_NS:
            self.clock_jumped(now_ns)
        self._now_ns = max(now_ns, self._now_ns)
        return self._now_ns

    def _unfit(self, name: str, time_ns: int, now_ns: int) -> str | None:
        kept = self._kept[name]
        if time_ns > now_ns + MS * self.how.ahead_ms:
            return "ahead"
        if time_ns < now_ns - MS * self.how.max_age_ms:
            return "late"
        place = _place(kept, time_ns)
        if place < len(kept) and kept[place].time_ns == time_ns:
            return "duplicate"
        if self._taken_ns is None:
            return None
        is_reference = name == self.how.reference
        oldest = self._taken_ns + 1 if is_reference else self._taken_ns - self._within[name]
        return "superseded" if time_ns < oldest else None

    def _newest(self, now_ns: int) -> dict[str, _Kept] | None:
        """The parts of the newest complete observation, whose reference is the oldest kept afterwards. Those before it
        are superseded, and so is what is too old; those that lack an input and waited long enough are refused."""
        for name, kept in self._kept.items():
            self._drop(name, _place(kept, round(now_ns - MS * self.how.max_age_ms)))
        references = self._kept[self.how.reference]
        for place in reversed(range(len(references))):
            reference = references[place]
            waited = now_ns - reference.came_ns >= MS * self.how.wait_ms
            nearest = {n: self._nearest(n, reference.time_ns) for n in self._within}
            missing = sorted(n for n, kept in nearest.items() if kept is None)
            if not missing and (waited or all(self._kept[n][-1].time_ns >= reference.time_ns for n in nearest)):
                self._drop(self.how.reference, place)
                return {self.how.reference: reference, **{n: k for n, k in nearest.items() if k is not None}}
            if missing and waited:
                del references[place]
                self.accounts[self.how.reference].refuse(
                    "incomplete", f"no message of {', '.join(missing)} was near enough in time")
        return None

    def _nearest(self, name: str, time_ns: int) -> _Kept | None:
        kept = self._kept[name]
        place = _place(kept, time_ns)
        nearest = min(kept[max(place - 1, 0): place + 1], key=lambda k: abs(k.time_ns - time_ns), default=None)
        return nearest if nearest is not None and abs(nearest.time_ns - time_ns) <= self._within[name] else None

    def _drop(self, name: str, count: int) -> None:
        """The oldest."""
        self.accounts[name].superseded += sum(not k.used for k in self._kept[name][:count])
        del self._kept[name][:count]


def _place(kept: list[_Kept], time_ns: int) -> int:
    """Of the first that is not older."""
    return bisect_left(kept, time_ns, key=lambda k: k.time_ns)


def _said(why: str, time_ns: int, now_ns: int) -> str:
    apart = abs(time_ns - now_ns) / 1e9
    return {"ahead": f"its time is {apart:.3f} s ahead of the clock", "late": f"it is {apart:.3f} s old",
            "duplicate": "one of the same time is there"}[why]
