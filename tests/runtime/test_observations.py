"""An observation is one thing, written whole from any thread or not at all; every action names the one it is of."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from vlart.errors import RuntimeFailure

H = 4


class Both(nn.Module):
    """Action k of a chunk is (left, right, their difference) + k: of one observation the difference is k."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 3)
        nn.init.zeros_(self.words.weight)
        self.steps = nn.Buffer(torch.arange(H, dtype=torch.float32).reshape(1, H, 1))

    def forward(self, tokens, left, right):
        a, b = left.mean(-1, keepdim=True), right.mean(-1, keepdim=True)
        return {"action": torch.cat([a, b, a - b], -1)[:, None] + self.steps + self.words(tokens).mean(1)[:, None]}


def policy() -> vc.Policy:
    seen = vc.Source("observation")
    return vc.Policy("both", Both().eval(), {"tokens": vc.Source("task"), "left": seen, "right": seen},
                     {"tokens": torch.zeros(1, 2, dtype=torch.int64), "left": torch.zeros(1, 512),
                      "right": torch.ones(1, 512)})


def built(folder, action: str = "") -> vc.Bundle:
    (folder / "r.toml").write_text(f'name = "r"\ndescription = "r"\n[action]\n{action}\n')
    return vc.build(policy(), recipe=str(folder / "r.toml"), out=folder / "both.vlab")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    return built(tmp_path_factory.mktemp("both"))


def frame(number: float) -> dict[str, np.ndarray]:
    return {name: np.full((1, 512), number, np.float32) for name in ("left", "right")}


TOKENS = {"tokens": np.zeros((1, 2), np.int64)}


def status_of(call, *arguments) -> str:
    with pytest.raises(RuntimeFailure) as failure:
        call(*arguments)
    return failure.value.status


def cameras(write_all, stopped: threading.Event) -> list[threading.Thread]:
    """Two threads, each of which has whole observations, named by their number."""

    def see(first: int) -> None:
        number = first
        while not stopped.is_set():
            write_all(frame(number), number)
            number = first + (number + 1) % 1000

    found = [threading.Thread(target=see, args=(first,)) for first in (1, 2000)]
    for thread in found:
        thread.start()
    return found


def test_two_threads_write_whole_observations_of_a_session(bundle):
    stopped = threading.Event()
    with vc.Session(bundle.path, threads=1) as session:
        session.write_all(TOKENS | frame(5), 5)
        threads = cameras(session.write_all, stopped)
        names, ticks = set(), 0
        while len(names) < 20 and ticks < 200_000:
            session.step()
            action, made = session.pop(), session.popped()
            assert action[2] == made.row and action[0] == made.observation + made.row
            names.add(made.observation)
            ticks += 1
        stopped.set()
        for thread in threads:
            thread.join()
    assert len(names) == 20


def test_two_threads_write_whole_observations_beside_a_worker(bundle):
    stopped = threading.Event()
    with vc.AsyncSession(bundle.path) as session:
        session.write_all(TOKENS | frame(5), 5)
        session.request()
        threads = cameras(session.write_all, stopped)
        names, ticks = set(), 0
        while len(names) < 20 and ticks < 200_000:
            if session.info().due:
                session.request()
            if session.info().remaining:
                popped = session.pop()
                assert popped.action[2] == popped.row and popped.action[0] == popped.observation + popped.row
                names.add(popped.observation)
            ticks += 1
        stopped.set()
        for thread in threads:
            thread.join()
    assert len(names) == 20


def test_source_by_source_only_one_thread_writes_an_observation(bundle):
    """The control: without the refusal a chunk would be of no observation."""
    with vc.Session(bundle.path, threads=1) as session:
        session.write("left", frame(1)["left"])
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(status_of(session.write, "right", frame(2)["right"])))
        thread.start()
        thread.join()
        assert found == ["BAD_ARGUMENT"]
        session.write_all(TOKENS | frame(1), 1)
        session.step()
        thread = threading.Thread(target=lambda: session.write("right", frame(2)["right"]))  # the next one
        thread.start()
        thread.join()
        assert status_of(session.write, "left", frame(3)["left"]) == "BAD_ARGUMENT"


def test_a_refused_observation_changes_nothing(bundle):
    with vc.Session(bundle.path, threads=1) as session:
        session.write_all(TOKENS | frame(3), 3)
        session.step()
        wrong = {"not finite": {"left": np.full((1, 512), np.nan, np.float32)}, "shape": {"left": np.zeros((1, 3))},
                 "token": {"tokens": np.full((1, 2), -1)}, "row": {"tokens": np.full((1, 2), 10)}}
        for array in wrong.values():
            assert status_of(session.write_all, frame(8) | array, 8) in ("NOT_FINITE", "WRONG_SHAPE", "WRONG_DTYPE",
                                                                        "INPUT_OUT_OF_RANGE")
        runs = session.stats().runs()
        session.step()
        assert session.stats().runs() == runs
        assert session.pop()[0] == 3 and session.popped().observation == 3


@pytest.mark.parametrize("token", [-1, 10, -(2**40), 2**40])
def test_a_token_that_is_no_row_of_the_table_is_refused(bundle, token):
    """An engine's Gather counts negative rows from the end; PyTorch refuses them."""
    assert bundle.plan.token_ranges[0].rows == 10
    with pytest.raises(IndexError):
        policy().infer(tokens=torch.full((1, 2), token), left=torch.zeros(1, 512), right=torch.zeros(1, 512))
    with vc.Session(bundle.path, threads=1) as session:
        session.write("tokens", np.full((1, 2), 9))
        assert status_of(session.write, "tokens", np.full((1, 2), token)) == "INPUT_OUT_OF_RANGE"
        assert session.read("tokens").tolist() == [[9, 9]]
    with vc.Session(bundle.path, threads=1, accept=("out of range",)) as session:  # recordings are no exception
        assert status_of(session.write, "tokens", np.full((1, 2), token)) == "INPUT_OUT_OF_RANGE"


def test_source_by_source_an_observation_is_named_by_its_time(bundle):
    with vc.Session(bundle.path, threads=1) as session:
        assert status_of(session.popped) == "QUEUE_EMPTY"
        for now in (1_000, 2_000):
            session.time(now)
            for name, array in (TOKENS | frame(now)).items():
                session.write(name, array)
            session.step()
            session.pop()
            assert session.popped().observation == now
        session.reset()
        assert status_of(session.popped) == "QUEUE_EMPTY"


def drive(session, numbers) -> list[float]:
    found = []
    for number in numbers:
        session.write_all(TOKENS | frame(number))
        session.step()
        found.append(float(session.pop()[0]))
    return found


def test_actions_are_clipped_to_the_largest_step_of_a_tick(tmp_path):
    """2 per tick, or 30 per second at 10 ticks per second: of both the smaller."""
    limited = built(tmp_path, "execute = 1\nmax_step = [2.0, 9.0, 0.0]\nmax_velocity = [30.0, 30.0, 0.0]\n"
                              "control_hz = 10.0")
    assert limited.plan.action.rate_limit.step == (2.0, 3.0, 0.0)
    with vc.Session(limited.path, threads=1) as session:
        assert drive(session, (50, 60, 60, 60, 10)) == [50, 52, 54, 56, 54]
        assert session.popped().clipped == 2
        session.reset()
        assert drive(session, (0,)) == [0] and session.popped().clipped == 0
    with vc.AsyncSession(limited.path, safe="zero") as session:
        first = session.pop()
        assert first.status == "SAFE_ACTION" and not first.action.any()
        session.write_all(TOKENS | frame(50), 7)
        session.request()
        while not session.info().remaining:
            pass
        assert [float(session.pop().action[0]) for _ in range(3)] == [2, 4, 6]  # from the zeros that it executed


def test_actions_that_are_too_far_are_refused(tmp_path):
    limited = built(tmp_path, 'execute = 1\nmax_step = [2.0, 9.0, 0.0]\nrate_rule = "refuse"')
    with vc.Session(limited.path, threads=1) as session:
        assert drive(session, (5, 6)) == [5, 6]
        session.write_all(frame(60))
        session.step()
        assert status_of(session.pop) == "ACTION_TOO_FAR" and session.queue().remaining == 0
        assert drive(session, (7,)) == [7]
    session = vc.AsyncSession(limited.path)
    session.write_all(TOKENS | frame(5))
    session.request()
    session.answer()
    assert session.pop().action[0] == 5
    session.write_all(frame(60))
    session.request()
    session.answer()
    held = session.pop()
    assert held.status == "SAFE_ACTION" and held.action[0] == 5 and session.info().due
    session.close()
