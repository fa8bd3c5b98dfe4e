"""Priorities, cores and locked memory: off by default; what the system says of the threads is what was asked for."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.samples import policies
from vlart.errors import RuntimeFailure

CORE = min(os.sched_getaffinity(0))
NOWHERE = vc.Threads(cores=(1000,))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    return vc.build(policies.late_fusion(), out=tmp_path_factory.mktemp("threads") / "p.vlab")


def tasks() -> set[int]:
    return {int(p.name) for p in Path("/proc/self/task").iterdir()}


def write(session) -> None:
    for name, tensor in policies.late_fusion().example_inputs.items():
        session.write(name, tensor)


def test_an_engines_pool_runs_on_its_cores_and_the_caller_as_before(bundle):
    before, mine = tasks(), os.sched_getaffinity(0)
    with vc.Session(bundle.path, threads=2, pool=vc.Threads(cores=(CORE,))) as session:
        write(session)
        session.step()
        pool = {t: os.sched_getaffinity(t) for t in tasks() - before}
        assert pool and all(cores == {CORE} for cores in pool.values())
    assert os.sched_getaffinity(0) == mine
    with vc.Session(bundle.path, threads=2):
        assert all(os.sched_getaffinity(t) == mine for t in tasks() - before)  # off by default


def test_a_pool_of_its_own_size_chooses_cores_for_itself(bundle):
    with pytest.raises(RuntimeFailure, match="`threads` is not said"):
        vc.Session(bundle.path, pool=vc.Threads(cores=(CORE,)))


def test_a_worker_runs_as_it_is_told_or_does_not_start(bundle):
    before = tasks()
    with vc.AsyncSession(bundle.path, worker=vc.Threads(cores=(CORE,))) as session:
        assert {CORE} in [os.sched_getaffinity(t) for t in tasks() - before]
        write(session)
        session.request()
        while session.info().busy:
            pass
        assert session.info().chunks == 1
    with pytest.raises(RuntimeFailure) as refused:
        vc.AsyncSession(bundle.path, worker=NOWHERE).start()
    assert refused.value.status == "THREAD_REFUSED" and "cores" in refused.value.what


def test_a_worker_ends_with_a_session_that_nobody_closed(bundle):
    before = tasks()
    session = vc.AsyncSession(bundle.path).start()
    assert len(tasks() - before) >= 1
    del session
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "vlart"]


def test_a_lane_says_that_it_could_not_run_as_it_was_told(tmp_path):
    (tmp_path / "r.toml").write_text(policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\n')
    made = vc.build(policies.dual_rate(), recipe=str(tmp_path / "r.toml"), out=tmp_path / "l.vlab")
    seen: list[set[int]] = []
    done = threading.Event()

    def observe(lane):
        seen.append(os.sched_getaffinity(0))
        done.set()
        lane.write("tokens", np.zeros((1, 6), np.int64))
        lane.write("wide", np.zeros((1, 32, 32, 3), np.uint8))

    with vc.Lanes(made.path, threads=1) as lanes:
        lanes["slow"].start(observe, hz=100, runs=vc.Threads(cores=(CORE,)))
        assert done.wait(10)
    assert seen[0] == {CORE} and lanes["slow"].failure is None
    with vc.Lanes(made.path, threads=1) as lanes:
        lanes["slow"].start(observe, runs=NOWHERE)
        lanes["slow"].stop()
    assert lanes["slow"].failure.status == "THREAD_REFUSED"


PROGRAM = """
import os, threading, vlacompile as vc
def locked():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmLck")).split()[1])
assert locked() == 0
try:
    vc.Threads(priority=3, lock_memory=True).apply()
    print("allowed", os.sched_getscheduler(0) == os.SCHED_FIFO, os.sched_getparam(0).sched_priority, locked() > 0)
except vc.VlaError as error:
    print(error.status, os.sched_getscheduler(0) == os.SCHED_OTHER)
"""


def test_priority_and_locked_memory_of_a_program():
    """In one of its own: whatever this machine allows, the outcome is whole."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("allowed True 3 True", "THREAD_REFUSED True"), done.stderr


@pytest.mark.parametrize("wrong", [{"priority": 100}, {"cores": (1024,)}, {"cores": tuple(range(1025))}])
def test_what_there_cannot_be_is_an_argument(wrong):
    with pytest.raises(RuntimeFailure) as failure:
        vc.Threads(**wrong).apply()
    assert failure.value.status == "BAD_ARGUMENT"
