"""Messages become observations by the rule that synchronise.py states: by examples, and beside a reference that knows
nothing but the rule."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ros.messages import MS
from vlart.ros.account import Account
from vlart.ros.mapping import IMAGE, Synchronise, Topic
from vlart.ros.synchronise import BACK_NS, MOST_KEPT, Synchroniser

TOPICS = {"a": Topic("/a", IMAGE), "b": Topic("/b", IMAGE), "c": Topic("/c", IMAGE, within_ms=5)}
HOW = Synchronise("a", within_ms=20, wait_ms=15, max_age_ms=200, ahead_ms=10)
T = 1_000_000 * MS


def made(how: Synchronise = HOW, topics=TOPICS) -> Synchroniser:
    return Synchroniser(topics, how)


def total(it: Synchroniser, name: str) -> int:
    account = it.accounts[name]
    return account.used + account.superseded + account.refused.total() + account.waiting


def test_the_nearest_messages_take_part():
    it = made()
    for name, ms in (("b", -12), ("b", 3), ("b", -3), ("c", -4), ("c", 5)):
        assert it.add(name, T + ms * MS, (name, ms), T) is None
    assert it.add("a", T, "frame", T) is None
    found = it.take(T)
    assert found.time_ns == T and found.contents == {"a": "frame", "b": ("b", -3), "c": ("c", -4)}  # the earlier of two
    assert found.apart_ns == {"a": 0, "b": -3 * MS, "c": -4 * MS}
    assert it.take(T) is None  # once


def test_an_observation_waits_for_what_may_be_nearer_and_not_longer():
    it = made()
    for name in ("b", "c"):
        it.add(name, T - 4 * MS, "before", T)
    it.add("a", T, "frame", T)
    assert it.take(T) is None and it.take(T + 14 * MS) is None
    it.add("b", T + 1 * MS, "after", T + 14 * MS)
    assert it.take(T + 14 * MS) is None  # c may be nearer yet
    assert it.take(T + 15 * MS).contents == {"a": "frame", "b": "after", "c": "before"}


def test_what_lacks_an_input_is_refused_and_says_which():
    it = made()
    it.add("b", T, "b", T)
    it.add("c", T - 6 * MS, "too far", T)
    it.add("a", T, "frame", T)
    assert it.take(T + 20 * MS) is None
    assert it.accounts["a"].refused == {"incomplete": 1} and "no message of c" in it.accounts["a"].last_refusal


def test_of_complete_observations_the_newest_counts():
    it = made(Synchronise("a", within_ms=20, wait_ms=0))
    for k in range(4):
        for name in ("b", "c", "a"):
            it.add(name, T + 10 * k * MS, k, T + 10 * k * MS)
    assert it.take(T + 40 * MS).contents == {"a": 3, "b": 3, "c": 3}
    assert it.accounts["a"].superseded == 3 and it.accounts["a"].used == 1
    assert it.add("a", T + 20 * MS, 2, T + 45 * MS) == "superseded"  # older than what was taken


def test_messages_that_no_clock_explains_are_refused():
    it = made()
    assert it.add("a", T + 11 * MS, 0, T) == "ahead" and it.add("a", T - 201 * MS, 0, T) == "late"
    assert it.add("a", T, 0, T) is None and it.add("a", T, 0, T + MS) == "duplicate"
    assert it.accounts["a"].refused == {"ahead": 1, "late": 1, "duplicate": 1}


def test_a_clock_that_goes_back_forgets_what_waits():
    it = made()
    for name in TOPICS:
        it.add(name, T, 0, T)
    it.tell(T - BACK_NS)
    assert it.jumps == 0
    it.tell(T - BACK_NS - 1)
    assert it.jumps == 1 and it.take(T) is None
    assert all(it.accounts[n].refused == {"clock jumped": 1} for n in TOPICS)
    before = T - 5_000 * MS
    for name in TOPICS:
        assert it.add(name, before, 1, before + MS) is None  # what comes now is of the clock as it is now
    assert it.take(before + MS).contents == dict.fromkeys(TOPICS, 1)


def test_a_topic_that_nobody_takes_does_not_grow():
    it = made()
    for k in range(10_000):
        it.add("b", T + k * MS, bytes(8), T + k * MS)
    assert it.accounts["b"].waiting <= 201 and it.accounts["b"].superseded >= 9_799


def test_a_storm_does_not_grow_whatever_the_map_allows():
    """Not of the reference, nor of another; the newest ones stay, and every message is accounted for."""
    it = made(Synchronise("a", within_ms=1e6, wait_ms=1e6, max_age_ms=1e8, ahead_ms=1e8))
    for k in range(MOST_KEPT + 500):
        for name in "ab":
            it.add(name, T + k * MS, bytes(8), T + k * MS)
    for name in "ab":
        assert it.accounts[name].waiting == MOST_KEPT and it.accounts[name].superseded == 500
    newest = T + (MOST_KEPT + 499) * MS
    it.add("c", newest, b"", newest)
    assert it.take(newest).time_ns == newest
    assert all(total(it, n) == it.accounts[n].received for n in "abc")


def test_a_clock_that_shows_nonsense_once_costs_what_waits_and_no_more():
    it = made()
    for shown in (T, T + 10**18, T + 20 * MS, 1, T + 40 * MS):
        for name in TOPICS:
            it.add(name, T + (shown - T if abs(shown - T) < 10**9 else 0), shown, shown)
    assert it.take(T + 40 * MS).time_ns == T + 40 * MS
    assert all(total(it, n) == it.accounts[n].received == 5 for n in TOPICS)


# ---- beside a reference


@dataclass
class Reference:
    """The rule of synchronise.py's head, word by word, with no buffers that end and no time that is saved."""

    came: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: {n: [] for n in TOPICS})
    taken: int | None = None
    refused: set[int] = field(default_factory=set)

    def add(self, name: str, time: int, now: int) -> None:
        if now - 200 <= time <= now + 10 and time not in [t for t, _ in self._fresh(name, now)]:
            self.came[name].append((time, now, len(self.came[name])))

    def _fresh(self, name: str, now: int) -> list[tuple[int, int]]:
        return [(t, c) for t, c, _ in self.came[name] if t >= now - 200]

    def look(self, now: int) -> dict[str, int] | None:
        """{input: time of its message} of the newest complete observation; what waited in vain is refused."""
        for time, came in sorted(self._fresh("a", now), reverse=True):
            if time in self.refused or (self.taken is not None and time <= self.taken):
                continue
            waited, parts, settled = now - came >= 15, {"a": time}, True
            for name, within in (("b", 20), ("c", 5)):
                times = [t for t, _ in self._fresh(name, now) if self.taken is None
                         or t >= self.taken - within]
                near = [t for t in times if abs(t - time) <= within]
                settled &= any(t >= time for t in times)
                if near:
                    parts[name] = min(near, key=lambda t: (abs(t - time), t))
            if len(parts) == 3 and (waited or settled):
                return parts
            if len(parts) < 3 and waited:
                self.refused.add(time)
        return None


MESSAGES = st.tuples(st.sampled_from("abc"), st.integers(-60, 12), st.integers(0, 12))


@settings(max_examples=400, deadline=None)
@example([("a", 0, 0), ("c", -5, 10), ("a", 11, 5), ("b", 0, 0), "take"])  # b comes when a has waited long enough
@given(st.lists(st.one_of(MESSAGES, st.just("take")), max_size=60))
def test_as_a_reference_that_knows_the_rule_alone(events):
    it, reference, now, sent = made(), Reference(), 1_000_000, dict.fromkeys("abc", 0)
    for event in events:
        if event == "take":
            found, expected = it.take(now * MS), reference.look(now)
            assert (found and {n: (found.time_ns + d) // MS for n, d in found.apart_ns.items()}) == expected
            if expected:
                reference.taken = expected["a"]
            continue
        name, behind, later = event
        now += later
        sent[name] += 1
        it.add(name, (now + behind) * MS, None, now * MS)
        reference.look(now)
        reference.add(name, now + behind, now)
        reference.look(now)
        assert all(total(it, n) == it.accounts[n].received == sent[n] and it.accounts[n].waiting >= 0 for n in "abc")


def test_each_reason_keeps_its_own_words():
    account = Account()
    for why, said in (("late", "it is 3 s old"), ("unfit", "no joint"), ("late", "it is 4 s old")):
        account.refuse(why, said)
    assert account.copy().said == {"late": "it is 4 s old", "unfit": "no joint"}
    assert account.refused == {"late": 2, "unfit": 1} and account.last_refusal == "it is 4 s old"
