"""A control loop that never waits: an action that a chunk gives for tick t is the one that it predicted for tick t."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples import policies
from vlart.errors import ConfigError, RuntimeFailure

H, EXECUTE = 16, 8


class Counting(nn.Module):
    """Action k of a chunk is state + k, after work that takes a while and changes nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))
        self.steps = nn.Buffer(torch.arange(H, dtype=torch.float32).reshape(1, H, 1))

    def forward(self, tokens, state):
        x = state.repeat(1, self.weight.shape[0] // state.shape[1])
        for _ in range(6):
            x = x @ self.weight
        return {"action": x[:, None, :2] + self.steps + tokens[:, :1, None].float()}


def built(folder, consume: str = "queue", width: int = 1024) -> vc.Bundle:
    policy = vc.Policy("counting", Counting(width).eval(),
                       {"tokens": vc.Source("task"), "state": vc.Source("observation")},
                       {"tokens": torch.zeros(1, 2, dtype=torch.int64), "state": torch.tensor([[3.0, 3.0]])})
    some = f"execute = {EXECUTE}"
    more = {"queue": some, "realtime": f"{some}\ndelay = 2\nmax_guidance = 0", "ensemble": ""}[consume]
    (folder / "r.toml").write_text(f'name = "r"\ndescription = "r"\n[action]\nconsume = "{consume}"\n{more}\n')
    return vc.build(policy, recipe=str(folder / "r.toml"), out=folder / f"{consume}.vlab")


@pytest.fixture(scope="module", params=["queue", "realtime", "ensemble"])
def bundle(request, tmp_path_factory) -> vc.Bundle:
    return built(tmp_path_factory.mktemp("async"), request.param)


@pytest.fixture(scope="module")
def queue(tmp_path_factory) -> vc.Bundle:
    return built(tmp_path_factory.mktemp("async"), "queue", 64)


def drive(session: vc.AsyncSession, ticks: int, offset: float = 0.0,
          period: float = 2e-4) -> list[tuple[int, str, np.ndarray]]:
    """[(tick, status, action)]; the state is the tick, so that an action is too. Ticks are counted from the first
    action on."""
    found, following = [], time.perf_counter()
    for _ in range(ticks):
        now = session.info()
        tick = now.tick - now.idle_ticks
        if now.due:
            session.write("state", np.full((1, 2), tick + offset, np.float32))
            session.request()
        try:
            popped = session.pop()
            found.append((tick, popped.status, popped.action))
        except RuntimeFailure as error:
            assert error.status == "QUEUE_EMPTY" and not found and tick == 0
        following += period
        time.sleep(max(0.0, following - time.perf_counter()))
    return found


def test_an_action_is_for_the_tick_that_it_was_predicted_for(bundle):
    with vc.AsyncSession(bundle.path, lead_ticks=2) as session:
        session.write("tokens", np.zeros((1, 2), np.int64))
        found = drive(session, 1500)
        info = session.info()
    good = [(t, a) for t, status, a in found if status != "SAFE_ACTION"]
    assert info.chunks > 20 and len(good) > 300 and info.tick == 1500
    assert all(np.array_equal(a, np.full(2, t, np.float32)) for t, a in good)
    assert info.safe_actions == len(found) - len(good)


def test_an_observation_of_another_tick_shows(bundle):
    """The same loop with a state that is one tick ahead is off by one: the test above can fail."""
    with vc.AsyncSession(bundle.path) as session:
        session.write("tokens", np.zeros((1, 2), np.int64))
        good = [(t, a) for t, status, a in drive(session, 200, offset=1.0) if status != "SAFE_ACTION"]
    assert good and all(np.array_equal(a, np.full(2, t + 1, np.float32)) for t, a in good)


def test_the_first_chunk_begins_at_its_first_row_and_then_the_last_action_is_held(queue):
    """However many ticks pass before it comes: the robot is where it was seen."""
    session = vc.AsyncSession(queue.path)
    session.write("tokens", np.zeros((1, 2), np.int64))
    session.write("state", np.full((1, 2), 0, np.float32))
    session.request()
    for _ in range(21):  # nobody computes yet
        with pytest.raises(RuntimeFailure, match="no action to execute"):
            session.pop()
    session.start()
    while session.info().busy:
        time.sleep(1e-3)
    assert session.info().late_ticks == 0 and session.info().remaining == H and session.info().idle_ticks == 21
    assert [float(session.pop().action[0]) for _ in range(H)] == list(range(H))
    held = [session.pop() for _ in range(3)]
    assert all(p.status == "SAFE_ACTION" and p.action[0] == H - 1 for p in held)
    session.close()
    session.close()
    with pytest.raises(RuntimeFailure, match="closed"):
        session.pop()


LATE = 4


def begun(queue, **options) -> vc.AsyncSession:
    """Without a worker; one chunk is being executed, and another was asked for at its third tick."""
    session = vc.AsyncSession(queue.path, **options)
    ask(session, 0)
    session.answer()
    assert [float(session.pop().action[0]) for _ in range(3)] == [0, 1, 2]
    ask(session, 1000)
    return session


def ask(session: vc.AsyncSession, state: float, task: int = 0) -> None:
    session.write("tokens", np.full((1, 2), task, np.int64))
    session.write("state", np.full((1, 2), state, np.float32))
    session.request()


def numbers(session: vc.AsyncSession, ticks: int) -> list[tuple[str, float]]:
    return [(p.status, float(p.action[0])) for p in (session.pop() for _ in range(ticks))]


@pytest.mark.parametrize("expire, row", [("time", LATE), ("execution", LATE)])
def test_a_late_chunk_begins_where_the_last_one_has_led(queue, expire, row):
    session = begun(queue, expire=expire)
    assert numbers(session, LATE) == [("OK", 3.0 + k) for k in range(LATE)]
    session.answer()
    assert numbers(session, 1) == [("OK", 1000.0 + row)] and session.info().late_ticks == row
    session.close()


@pytest.mark.parametrize("expire, row", [("time", 5), ("execution", 2)])
@pytest.mark.parametrize("safe, held", [("hold", float(EXECUTE)), ("zero", 0.0), (np.array([7.0, 7.0]), 7.0)])
def test_a_chunk_after_the_safe_action_begins_by_the_declared_rule(queue, expire, row, safe, held):
    """Two rows were executed since the observation, and the robot held still for three ticks."""
    session = vc.AsyncSession(queue.path, expire=expire, safe=safe, stale_ticks=1)
    ask(session, 0)
    session.answer()
    assert numbers(session, EXECUTE - 1) == [("OK", float(k)) for k in range(EXECUTE - 1)]
    ask(session, 1000)
    assert numbers(session, 2) == [("OK", float(EXECUTE - 1 + k)) for k in range(2)]
    assert numbers(session, 3) == [("SAFE_ACTION", held)] * 3
    session.answer()
    assert numbers(session, 1) == [("OK", 1000.0 + row)]
    session.close()


@pytest.mark.parametrize("how, row", [("keep", 3), ("drop", 0), ("episode", 0)])
def test_the_chunk_after_a_cancel(queue, how, row):
    """Kept, the old chunk went on for three ticks; dropped, the robot stood still."""
    session = begun(queue, safe="zero")
    session.cancel(how)
    ask(session, 0, task=5000)
    safe = [("SAFE_ACTION", 0.0)] * 3
    assert numbers(session, 3) == ([("OK", 3.0), ("OK", 4.0), ("OK", 5.0)] if how == "keep" else safe)
    session.answer()
    assert numbers(session, 1) == [("OK", 5000.0 + row)]
    session.close()


def test_an_episode_begins_with_an_observation_and_then_every_tick_is_answered(queue):
    first = {"tokens": np.zeros((1, 2), np.int64), "state": np.full((1, 2), 100, np.float32)}
    with vc.AsyncSession(queue.path) as session:
        for episode in (1, 2):
            session.begin(first | {"state": np.full((1, 2), 100 * episode, np.float32)}, observation=episode)
            popped = [session.pop() for _ in range(H + 3)]
            assert [float(p.action[0]) for p in popped[:H]] == [100.0 * episode + k for k in range(H)]
            assert {p.observation for p in popped} == {episode} and popped[-1].status == "SAFE_ACTION"
        with pytest.raises(RuntimeFailure, match="SOURCE_UNSET|not finite"):
            session.begin({"state": np.full((1, 2), np.nan, np.float32)})
    with vc.AsyncSession(queue.path) as session, pytest.raises(RuntimeFailure) as failure:
        session.begin({"state": first["state"]})  # no instruction was ever written
    assert failure.value.status == "SOURCE_UNSET"
    session = vc.AsyncSession(queue.path)
    with pytest.raises(RuntimeFailure) as failure:
        session.begin(first, timeout_s=0.01)  # nobody computes
    assert failure.value.status == "DEADLINE_MISSED"
    session.close()


def test_nothing_of_the_last_episode_is_held(queue):
    session = begun(queue)
    assert numbers(session, 1) == [("OK", 3.0)]
    session.cancel("drop")
    assert numbers(session, 1) == [("SAFE_ACTION", 3.0)]  # of this episode: the arm is there
    session.cancel("episode")
    with pytest.raises(RuntimeFailure, match="no action to execute"):
        session.pop()
    session.close()


def test_a_missed_deadline_is_told_while_the_last_chunk_goes_on(queue):
    """And not any more once what is late was cancelled."""
    session = begun(queue, deadline_ticks=2)
    assert [s for s, _ in numbers(session, 5)] == ["OK"] * 3 + ["DEADLINE_MISSED"] * 2
    session.cancel("keep")
    assert [s for s, _ in numbers(session, 2)] == ["OK"] * 2
    ask(session, 2000)
    session.answer()
    assert numbers(session, 1) == [("OK", 2000.0)]
    session.close()


def test_a_deadline_counts_from_the_observation_that_is_awaited(queue):
    """Also where every tick brings another one, which waits behind it, or behind the one that was answered last."""
    session = begun(queue, deadline_ticks=2)
    statuses = []
    for tick in range(4, 9):
        statuses.append(session.pop().status)
        ask(session, 1000 + tick)
    assert statuses == ["OK"] * 3 + ["DEADLINE_MISSED"] * 2
    session.answer()
    ask(session, 2000)
    assert numbers(session, 4) == [("OK", 1008.0), ("OK", 1009.0), ("OK", 1010.0), ("DEADLINE_MISSED", 1011.0)]
    session.close()


def test_what_the_worker_has_begun_is_awaited_where_the_next_request_comes_before_the_next_pop(queue):
    session = begun(queue, deadline_ticks=2)
    session.compute()
    assert numbers(session, 1) == [("OK", 3.0)]
    ask(session, 2000)  # at tick 4
    assert [s for s, _ in numbers(session, 3)] == ["OK", "OK", "DEADLINE_MISSED"]
    session.deliver()
    session.compute()
    ask(session, 3000)  # at tick 7, behind that of tick 4
    assert numbers(session, 1) == [("DEADLINE_MISSED", 1004.0)]
    session.deliver()
    assert numbers(session, 1) == [("OK", 2004.0)]
    session.close()


def test_a_chunk_that_comes_after_its_stale_ticks_is_counted_as_discarded(queue):
    session = begun(queue, stale_ticks=1)
    assert [s for s, _ in numbers(session, EXECUTE + 1)] == ["OK"] * 6 + ["SAFE_ACTION"] * 3
    session.answer()
    assert session.info().discarded == 1 and session.info().remaining == 0
    session.close()


def test_an_observation_that_begins_an_episode_may_be_replaced(tmp_path):
    """Two requests before the worker looks: the episode ends with the second as well."""
    built_bundle = built(tmp_path, "realtime", 64)
    session = vc.AsyncSession(built_bundle.path)
    ask(session, 0)
    session.answer()
    session.pop()
    session.cancel("episode")
    ask(session, 100)
    ask(session, 200)
    session.answer()
    assert numbers(session, 1) == [("OK", 200.0)]
    session.close()


@pytest.mark.parametrize("delay", [0, 1, 3, 7])
def test_a_stated_delay(bundle, delay):
    """Without a worker, answered so many ticks after each request: every tick that a chunk answers is right."""
    session = vc.AsyncSession(bundle.path, safe="zero")
    session.write("tokens", np.zeros((1, 2), np.int64))
    answered, asked, late, pops = 0, None, [], 0
    while pops < 100:
        tick = session.info().tick - session.info().idle_ticks
        if asked is None and session.info().due:
            session.write("state", np.full((1, 2), tick, np.float32))
            session.request()
            asked = pops
        if asked is not None and pops - asked == delay:
            session.answer()
            asked = None
            late.append(session.info().late_ticks)
        popped = session.pop()
        pops += 1
        if popped.status != "SAFE_ACTION":
            assert popped.action[0] == tick
            answered += 1
    assert late[0] == 0 and set(late[1:]) == {delay} and answered == 100 - delay
    session.close()


@pytest.mark.parametrize("safe, want", [("zero", [0.0, 0.0]), (np.array([0.5, -0.5]), [0.5, -0.5])])
def test_declared_safe_actions(queue, safe, want):
    with vc.AsyncSession(queue.path, safe=safe) as session:
        assert session.pop().status == "SAFE_ACTION" and session.pop().action.tolist() == want


def test_another_instruction_is_never_answered_by_the_last_one(queue):
    """Actions of an instruction carry its number; after a cancel with "drop" none of an earlier one comes."""
    with vc.AsyncSession(queue.path, safe="zero") as session:
        for task in range(40):
            session.cancel("drop")
            session.write("tokens", np.full((1, 2), 1000 * (task + 1), np.int64))
            session.write("state", np.zeros((1, 2), np.float32))
            session.request()
            for _ in range(10):
                popped = session.pop()
                assert popped.status == "SAFE_ACTION" or int(popped.action[0]) // 1000 == task + 1
                time.sleep(2e-4)
        assert session.info().chunks > 0


def test_the_interpreter_is_free_while_a_chunk_is_computed(bundle):
    """Another Python thread counts on while the worker is inside libvlart."""
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
    with vc.AsyncSession(bundle.path) as session:
        session.write("tokens", np.zeros((1, 2), np.int64))
        other = threading.Thread(target=count)
        other.start()
        meanwhile = 0
        for i in range(50):
            session.write("state", np.full((1, 2), i, np.float32))
            session.request()
            before = counted[0]
            while session.info().busy:
                time.sleep(1e-4)
            meanwhile += counted[0] - before
        stop.set()
        other.join()
    assert meanwhile > 1000


def test_bad_input(queue, tmp_path):
    with pytest.raises(ConfigError, match="no safe action"):
        vc.AsyncSession(queue.path, safe="stop")
    with pytest.raises(ConfigError, match="shape"):
        vc.AsyncSession(queue.path, safe=np.zeros(3))
    with pytest.raises(ConfigError, match="rows expire"):
        vc.AsyncSession(queue.path, expire="never")
    with pytest.raises(RuntimeFailure, match="safe action is not finite|not finite|disagree|not agree"):
        vc.AsyncSession(queue.path, safe=np.array([np.nan, 0.0]))
    with vc.AsyncSession(queue.path) as session:
        with pytest.raises(RuntimeFailure, match="not finite"):
            session.write("state", np.full((1, 2), np.inf, np.float32))
        with pytest.raises(RuntimeFailure, match="wrong shape"):
            session.write("state", np.zeros((1, 3), np.float32))
        with pytest.raises(RuntimeFailure, match="no source is called"):
            session.write("stat", np.zeros((1, 2), np.float32))
        with pytest.raises(ConfigError, match="unknown way to cancel"):
            session.cancel("now")
        session.request()  # tokens were never written
        while session.info().busy:
            time.sleep(1e-3)
        assert session.info().failures == 1
    with pytest.raises(RuntimeFailure, match="looks back"):
        vc.AsyncSession(vc.build(policies.remember(), out=tmp_path / "r.vlab").path)


def test_two_threads_answer_no_request(queue):
    with vc.AsyncSession(queue.path) as session:
        ask(session, 0)
        for answer in (session.answer, session.compute):
            with pytest.raises(ConfigError, match="worker computes already") as refused:
                answer()
            assert "closing" in refused.value.fix
