"""The same results whoever computes them, and nothing lost with a process."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workers import tasks
from vlacompile import workers
from vlacompile.workers import Workers
from vlart.errors import BudgetError, ConfigError, WorkerError

SEEDS = range(5)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="pip install 'vlacompile[cluster]'")
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0") as found:
        yield found


@pytest.fixture(params=["one process", "three processes", "cluster"])
def some(request):
    if request.param == "cluster":
        return Workers(cluster=request.getfixturevalue("cluster").scheduler_address)
    return Workers(1 if request.param == "one process" else 3)


def test_results_are_equal_to_the_bit_and_in_order(some):
    came: dict[int, list[float]] = {}
    assert some.run(tasks.drawn, SEEDS, done=came.__setitem__) == [_alone(s) for s in SEEDS]
    assert came == {i: _alone(s) for i, s in enumerate(SEEDS)}


def _alone(seed: int) -> list[float]:
    return Workers(1).run(tasks.drawn, [seed])[0] if seed not in ALONE else ALONE[seed]


ALONE: dict[int, list[float]] = {}


@pytest.fixture(scope="module", autouse=True)
def alone():
    ALONE.update(zip(SEEDS, Workers(1).run(tasks.drawn, SEEDS), strict=True))
    assert all(result[2] == 1 for result in ALONE.values())  # one thread each


def test_the_work_is_shared(some, tmp_path):
    shared = 2 if some.count > 1 or some.cluster is not None else 1
    found = some.run(tasks.process, [(tmp_path, shared)] * 6)
    assert len(set(found)) >= shared and (shared > 1 or len(set(found)) == 1) and os.getpid() not in found


def test_no_tasks_are_no_work(some):
    assert some.run(tasks.process, []) == []


def test_a_lost_workers_tasks_are_done_again(some, tmp_path):
    said: list[str] = []
    assert some.run(tasks.lost_once, [(tmp_path, i) for i in range(6)], told=said.append) == [i * i for i in range(6)]
    tries = [sum(p.name.startswith(f"{i}.") for p in tmp_path.iterdir()) for i in range(6)]
    assert tries[1] >= 2 and min(tries) == 1
    assert some.cluster or any("lost" in line for line in said)


def test_a_task_that_always_takes_its_process_with_it_is_given_up(some):
    with pytest.raises(WorkerError, match="given up") as raised:
        some.run(tasks.always_lost, range(4))
    assert "always_lost" in raised.value.where


def test_an_error_comes_back_as_it_was_raised(some):
    with pytest.raises(BudgetError) as raised:
        some.run(tasks.refused, range(4))
    assert raised.value.fix == "fix" and raised.value.reachable == {"max_weight_mb": 1.5}


def test_workers_of_another_version_are_refused(some, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "version", lambda: "vlacompile 0 of before")
    with pytest.raises(ConfigError, match="another version") as raised:
        some.run(tasks.process, [(tmp_path, 1)] * 2)
    assert "of before" in raised.value.why


def test_a_cluster_that_is_not_there_is_told():
    pytest.importorskip("distributed", reason="pip install 'vlacompile[cluster]'")
    with pytest.raises(WorkerError, match="cannot be reached") as raised:
        Workers(cluster="tcp://127.0.0.1:9").run(tasks.drawn, [1])
    assert "dask scheduler" in raised.value.fix


def test_workers_that_mix_tasks_in_one_process_are_refused():
    distributed = pytest.importorskip("distributed", reason="pip install 'vlacompile[cluster]'")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as found:
        with pytest.raises(ConfigError, match="no workers that fit") as raised:
            Workers(cluster=found.scheduler_address).run(tasks.drawn, [1])
        assert "--nthreads 1" in raised.value.fix


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_nothing_runs_on_without_who_asked(tmp_path, ends):
    program = ("import signal\nfrom pathlib import Path\nfrom tests.workers import tasks\n"
               "from vlacompile.workers import Workers\n"
               "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whatever this process inherited
               f"if __name__ == '__main__':\n    Workers(2).run(tasks.forever, [Path({str(tmp_path)!r})] * 2)\n")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    asked = subprocess.Popen([sys.executable, tmp_path / "program.py"], stderr=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    ids = _within(60, lambda: [int(p.name) for p in tmp_path.iterdir() if p.name.isdecimal()], lambda i: len(i) == 2)
    asked.send_signal(ends)
    asked.communicate(timeout=60)
    _within(30, lambda: [i for i in ids if Path(f"/proc/{i}").exists()], lambda left: not left)


def _within(seconds: float, look, enough):
    until = time.monotonic() + seconds
    while not enough(found := look()):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("text", ["0", "-1", "two", "1e3", "²", "1025"])
def test_numbers_of_workers_that_are_none(text, capsys):
    parser = argparse.ArgumentParser()
    workers.add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--workers", text])
    assert "is not a number of processes" in capsys.readouterr().err


def test_options_choose():
    parser = argparse.ArgumentParser()
    workers.add_options(parser)
    assert workers.chosen(parser.parse_args([])) == Workers(workers.processors())
    assert workers.chosen(parser.parse_args(["--workers", "7"])) == Workers(7)
    assert str(workers.chosen(parser.parse_args(["--cluster", "tcp://h:1"]))) == "tcp://h:1"
