"""Random sequences of calls against the reference: nothing of an episode, a task or a client reaches the next one."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.runtime.episode_reference import COUNTED, AsyncReference, Rules, SessionReference, prefix
from vlacompile.policy import action_decoding as dec
from vlart.errors import RuntimeFailure

H, D = 6, 2
BACKBONES = ("light", "heavy")
SEQUENCES, CALLS = 1500, 24
MOST = 7.3
CONSUMED = {"queue": "execute = 3", "ensemble": "decay = 0.01", "realtime": "execute = 2\ndelay = 1\nhorizon = 4"}
RULES = {"queue": Rules("queue", H, 3, D), "ensemble": Rules("ensemble", H, 1, D),
         "realtime": Rules("realtime", H, 2, D, delay=1, horizon=4)}


class Rows(nn.Module):
    """Row k of a chunk: 100 * instruction + state + slope * k."""

    def __init__(self, slope: float):
        super().__init__()
        self.rows = nn.Buffer(slope * torch.arange(H, dtype=torch.float32).reshape(1, H, 1))

    def forward(self, tokens, state):
        return {"action": state[:, None, :] + self.rows + 100.0 * tokens[:, :1, None].float()}


class Continued(Rows):
    """The same, pulled to the previous chunk where the weights say so."""

    def forward(self, tokens, state, previous, weights):
        fresh = super().forward(tokens, state)["action"]
        return {"action": fresh + (previous - fresh) * weights[None, :, None]}


def predict(backbone: int, tokens, state, previous=None, weights=None) -> np.ndarray:
    rows = (1.0 + backbone) * np.arange(H, dtype=np.float32)[:, None]
    fresh = state[0][None, :] + rows + 100.0 * float(tokens[0, 0])
    return fresh if previous is None else (fresh + (previous[0] - fresh) * weights[:, None]).astype(np.float32)


def policy(kind: str) -> vc.Policy:
    sources = {"tokens": vc.Source("task"), "state": vc.Source("observation")}
    examples = {"tokens": torch.zeros(1, 2, dtype=torch.int64), "state": torch.zeros(1, D)}
    if kind == "realtime":
        step = vc.Source("step")
        return vc.Policy("continued", Continued(1.0).eval(), sources | {"previous": step, "weights": step},
                         examples | {"previous": torch.zeros(1, H, D), "weights": torch.ones(H)},
                         outputs=("action",), guidance=dec.Guidance("previous", "weights", "action"))
    members = {name: vc.Policy(name, Rows(1.0 + i).eval(), sources, examples) for i, name in enumerate(BACKBONES)}
    return vc.join(members, "rows")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, vc.Bundle]:
    folder, found = tmp_path_factory.mktemp("episodes"), {}
    for kind, text in CONSUMED.items():
        (folder / f"{kind}.toml").write_text(f'name = "r"\ndescription = "r"\n[action]\nconsume = "{kind}"\n{text}\n')
        found[kind] = vc.build(policy(kind), recipe=str(folder / f"{kind}.toml"), out=folder / f"{kind}.vlab")
    return found


@pytest.fixture(scope="module")
def limited(tmp_path_factory) -> dict[tuple[str, str], vc.Bundle]:
    """The same with a limit on what a tick may change, by kind and rule."""
    folder, found = tmp_path_factory.mktemp("limited"), {}
    for kind, text in CONSUMED.items():
        for rule in ("clip", "refuse"):
            recipe = folder / f"{kind}-{rule}.toml"
            recipe.write_text(f'name = "r"\ndescription = "r"\n[action]\nconsume = "{kind}"\n{text}\n'
                              f'max_step = [{MOST}, {MOST}]\nrate_rule = "{rule}"\n')
            found[kind, rule] = vc.build(policy(kind), recipe=str(recipe), out=folder / f"{kind}-{rule}.vlab")
    return found


def drawn(rng: random.Random, name: str) -> np.ndarray:
    if name == "tokens":
        return np.full((1, 2), rng.randrange(1, 4), np.int64)
    return np.full((1, D), rng.randrange(50), np.float32)


def check(action, wanted, calls: list[str]) -> None:
    np.testing.assert_allclose(action, wanted, atol=2e-3, err_msg=" ".join(calls))


def again(rng: random.Random, *ends, write) -> None:
    """An episode ends; most of the time, its successor's first observation follows."""
    for end in ends:
        end()
    if rng.random() < 0.8:
        write("state", drawn(rng, "state"))


def play_session(session: vc.Session, rules: Rules, rng: random.Random, reset: bool = True) -> int:
    """One episode of random calls, beside a reference that knows none but this one. Returns the actions compared."""
    reference, calls, compared = SessionReference(rules, predict), [], 0
    if reset:
        session.reset()
    if rules.kind != "realtime":
        session.select(BACKBONES[0])

    def write(name: str, array: np.ndarray) -> None:
        session.write(name, array)
        reference.write(name, array)

    for name in ("tokens", "state"):  # an episode begins with an observation
        write(name, drawn(rng, name))
    words = (["state"] * 4 + ["tokens"] + ["step"] * 6 + ["pop"] * 8 + ["rows"] * 2 + ["reset"]
             + ["select"] * (rules.kind != "realtime"))
    for _ in range(rng.randrange(CALLS)):
        word = rng.choice(words)
        calls.append(word)
        if word == "reset":
            again(rng, session.reset, reference.reset, write=write)
        elif word == "select":
            chosen = rng.randrange(2)
            session.select(BACKBONES[chosen])
            reference.select(chosen)
        elif word == "step":
            assert outcome(session.step) == reference.step(), calls
        elif word == "rows":
            rows = rng.randrange(1, 4)
            wanted = reference.pop_rows(rows)
            if isinstance(wanted, str):
                assert outcome(lambda rows=rows: session.pop_rows(rows)) == wanted, calls
            else:
                check(session.pop_rows(rows), wanted, calls)
                compared += rows
        elif word == "pop":
            wanted = reference.pop()
            if isinstance(wanted, str):
                assert outcome(session.pop) == wanted, calls
            else:
                check(session.pop(), wanted, calls)
                compared += 1
        else:
            write(word, drawn(rng, word))
    return compared


def outcome(call) -> str:
    try:
        call()
    except RuntimeFailure as failure:
        return failure.status
    return "OK"


@pytest.mark.parametrize("kind", RULES)
def test_a_session_hands_out_what_this_episode_predicted(bundles, kind):
    rng, compared = random.Random(kind), 0
    with vc.Session(bundles[kind].path, threads=1) as session:
        for _ in range(SEQUENCES):
            compared += play_session(session, RULES[kind], rng)
    assert compared > SEQUENCES


@pytest.mark.parametrize("as_a_set", [False, True])
@pytest.mark.parametrize("kind", RULES)
def test_an_episode_needs_its_own_observation(bundles, kind, as_a_set):
    """What was written before it began, taken or not, is of the last one; equal bytes written again are this one's."""
    state = np.full((1, D), 7, np.float32)
    with vc.Session(bundles[kind].path, threads=1) as session:
        def see() -> None:
            if as_a_set:
                session.write_all({"state": state})
            else:
                session.write("state", state)

        session.write("tokens", np.ones((1, 2), np.int64))
        see()
        session.step()
        first = session.pop()
        for before in (lambda: None, see):
            before()
            session.reset()
            with pytest.raises(RuntimeFailure, match="of this episode") as caught:
                session.step()
            assert caught.value.status == "SOURCE_UNSET" and '"state"' in caught.value.where
            assert outcome(session.pop) == "QUEUE_EMPTY"
            see()
            session.step()  # the instruction goes on
            np.testing.assert_array_equal(session.pop(), first)


@pytest.mark.parametrize("as_a_set", [False, True])
def test_asynchronously_too_and_it_is_said_which(bundles, as_a_set):
    state, tokens = np.full((1, D), 7, np.float32), np.ones((1, 2), np.int64)
    with vc.AsyncSession(bundles["queue"].path, safe="zero") as policy:
        policy.begin({"state": state, "tokens": tokens})
        if as_a_set:
            policy.write_all({"state": state})
        else:
            policy.write("state", state)
        with pytest.raises(RuntimeFailure, match="first observation of the episode gave no chunk") as caught:
            policy.begin({"tokens": tokens})
        assert caught.value.status == "SOURCE_UNSET" and '"state"' in caught.value.where
        assert "of this episode" in caught.value.why and "write it" in caught.value.fix
        policy.begin({"state": state})
        assert policy.pop().status == "OK"


@pytest.mark.parametrize("kind", ["ensemble", "realtime"])
def test_without_the_end_of_an_episode_it_is_another_action(bundles, kind):
    """The control that must fail."""
    rng = random.Random(kind)
    with vc.Session(bundles[kind].path, threads=1) as session, pytest.raises(AssertionError):
        for _ in range(200):
            play_session(session, RULES[kind], rng, reset=False)


TICKS = [{"lead": lead, "stale": stale, "deadline": deadline}
         for lead, stale, deadline in ((0, 0, 0), (1, 0, 1), (0, 0, 2), (2, 1, 1), (0, 2, 2), (1, 1, 0))]


@dataclass
class Opened:
    """An asynchronous session, and what makes a reference of the same options."""

    session: vc.AsyncSession
    reference: Callable[[], AsyncReference]


@contextlib.contextmanager
def opened(bundle: vc.Bundle, rules: Rules, expire: str, safe, reference: type[AsyncReference] = AsyncReference,
           other: dict | None = None, lead: int = 0, stale: int = 0, deadline: int = 0):
    """other: options that the reference is given, and the session is not."""
    session = vc.AsyncSession(bundle.path, safe="hold" if safe is None else np.array(safe, np.float32), expire=expire,
                              lead_ticks=lead, stale_ticks=stale, deadline_ticks=deadline)
    same = {"expire": expire, "safe": None if safe is None else np.array(safe), "lead": lead, "stale": stale,
            "deadline": deadline}
    try:
        yield Opened(session, lambda: reference(rules, predict, **same | (other or {})))
    finally:
        session.close()


def told(info) -> dict[str, int]:
    return {name: int(getattr(info, name)) for name in ("remaining", "due", "busy", *COUNTED)}


def play_async(robot: Opened, rng: random.Random) -> Counter:
    """One episode and what follows from it; the worker may be at what the last one asked. Returns what pops said."""
    policy, reference, calls, seen = robot.session, robot.reference(), [], Counter()
    policy.cancel("episode")
    reference.cancel("episode")
    if reference.rules.kind != "realtime":
        policy.select(BACKBONES[0])
    policy.deliver()
    before = told(policy.info())
    if before["busy"]:
        reference.leave()

    def write(name: str, array: np.ndarray) -> None:
        policy.write(name, array)
        reference.write(name, array)

    def both(word: str, *arguments) -> None:
        getattr(policy, word)(*arguments)
        getattr(reference, word)(*arguments)

    for name in ("tokens", "state"):
        write(name, drawn(rng, name))
    if rng.random() < 0.5:
        both("request")
        both("answer")
    words = (["state"] * 3 + ["tokens"] + ["request"] * 6 + ["answer"] * 3 + ["compute"] * 3 + ["deliver"] * 3
             + ["pop"] * 14 + ["keep", "drop", "episode"] + ["info"] * 2
             + ["select"] * (reference.rules.kind != "realtime"))
    for _ in range(rng.randrange(2 * CALLS)):
        word = rng.choice(words)
        calls.append(word)
        if word == "episode":
            again(rng, lambda: both("cancel", "episode"), write=write)
        elif word in ("keep", "drop"):
            both("cancel", word)
        elif word == "select":
            chosen = rng.randrange(2)
            policy.select(BACKBONES[chosen])
            reference.select(chosen)
        elif word == "info":
            wanted = reference.info()
            assert told(policy.info()) == wanted | {name: before[name] + wanted[name] for name in COUNTED}, calls
        elif word in ("answer", "compute"):
            both("deliver")  # the worker has one in hand
            both(word)
        elif word in ("request", "deliver"):
            both(word)
        elif word == "pop":
            seen[pop_both(policy, reference, calls)] += 1
        else:
            write(word, drawn(rng, word))
    return seen


def pop_both(session: vc.AsyncSession, reference: AsyncReference, calls: list[str]) -> str:
    status, wanted = reference.pop()
    if wanted is None:
        assert outcome(session.pop) == status, calls
    else:
        got = session.pop()
        assert got.status == status, calls
        check(got.action, wanted, calls)
    return status


def play_all(bundle: vc.Bundle, rules: Rules, expire: str, safe, sequences: int, rng: random.Random) -> Counter:
    """With every choice of ticks."""
    seen: Counter = Counter()
    for ticks in TICKS:
        with opened(bundle, rules, expire, safe, **ticks) as robot:
            for _ in range(sequences // len(TICKS)):
                seen += play_async(robot, rng)
    return seen


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("expire", ["time", "execution"])
@pytest.mark.parametrize("kind", RULES)
def test_asynchronously_an_action_is_this_episodes_and_this_ticks(bundles, kind, expire, hold):
    """And it is told where the next chunk is late."""
    rng = random.Random(f"{kind} {expire} {hold}")
    seen = play_all(bundles[kind], RULES[kind], expire, None if hold else (0.0, 0.0), SEQUENCES // 2, rng)
    assert seen["OK"] + seen["DEADLINE_MISSED"] > SEQUENCES and seen["DEADLINE_MISSED"] > 50, seen


@pytest.mark.parametrize("rule", ["clip", "refuse"])
@pytest.mark.parametrize("kind", RULES)
def test_a_limit_counts_from_what_was_handed_out(limited, kind, rule):
    """Also where a refused row is among several, which are handed out together or not at all."""
    rules = replace(RULES[kind], most=MOST, refuse=rule == "refuse")
    rng, compared = random.Random(f"{kind} {rule}"), 0
    with vc.Session(limited[kind, rule].path, threads=1) as session:
        for _ in range(SEQUENCES):
            compared += play_session(session, rules, rng)
    assert compared > SEQUENCES // 2


@pytest.mark.parametrize("safe", [None, (0.0, 0.0), (45.0, 3.0)], ids=["hold", "zero", "given"])
@pytest.mark.parametrize("rule", ["clip", "refuse"])
@pytest.mark.parametrize("kind", RULES)
def test_asynchronously_a_limit_counts_from_the_safe_action_too(limited, kind, rule, safe):
    """Also from one that is the first action of its episode."""
    rules, rng = replace(RULES[kind], most=MOST, refuse=rule == "refuse"), random.Random(f"{kind} {rule} {safe}")
    seen = play_all(limited[kind, rule], rules, "time", safe, SEQUENCES // 3, rng)
    assert seen["OK"] > 50 and seen["DEADLINE_MISSED"] > 0, seen


class FromTheNewest(AsyncReference):
    """A loop that asks at every tick is never told that a chunk is late."""

    def since(self) -> int:
        return self.awaited()[-1].tick


class FromTheFirst(AsyncReference):
    """What waited behind an answer is late from the beginning."""

    def request(self) -> None:
        self.take()
        self.first = self.first if self.awaited() else self.tick
        super().request()

    def since(self) -> int:
        return self.first


@pytest.mark.parametrize("other, reference", [
    ({"expire": "execution"}, AsyncReference), ({"deadline": 2}, AsyncReference), ({"deadline": 0}, AsyncReference),
    ({"lead": 0}, AsyncReference), ({"stale": 1}, AsyncReference), ({}, FromTheNewest), ({}, FromTheFirst)])
def test_another_rule_is_another_answer(bundles, other, reference):
    """The control that must fail: the reference of one rule beside a session of the other."""
    rng, ticks = random.Random(0), {"lead": 1, "stale": 2, "deadline": 1}
    with (opened(bundles["queue"], RULES["queue"], "time", (0.0, 0.0), reference, other, **ticks) as robot,
          pytest.raises(AssertionError)):
        for _ in range(400):
            play_async(robot, rng)


def test_the_reference_s_prefix_is_of_the_paper():
    """Of a chunk of 6 rows, 2 ticks after it began: four are left, one of them is committed."""
    previous, weights = prefix(RULES["realtime"], np.arange(2 * H, dtype=np.float32).reshape(H, D), 2)
    assert previous[0, :, 0].tolist() == [4, 6, 8, 10, 0, 0]
    np.testing.assert_allclose(weights, [1, 0.75, 0.5, 0.25, 0, 0])
