"""A process that was forked, as multiprocessing and torch's DataLoader fork it, has the sessions of its parent and none
of the threads that compute for them: every call is refused there in four lines, closing and deleting do nothing, the
child ends by itself, and the parent goes on as if there were none. What the child opens itself works."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import vlacompile as vc
from tests.runtime.forking import in_child
from tests.runtime.test_async_session import built
from tests.samples import policies
from vlart.errors import RuntimeFailure
from vlart.recording.log import Log
from vlart.runtime.recorder import Recorder
from vlart.serve.policy_host import PolicyHost

ROOT, FORKS = Path(__file__).parents[2], 3
LANED = policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\n'
STATE = {"state": np.ones((1, 2), np.float32)}
OBSERVATION = {"tokens": np.zeros((1, 2), np.int64), **STATE}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Its inference takes some milliseconds."""
    return built(tmp_path_factory.mktemp("fork"), "queue", 512).path


@pytest.fixture(scope="module")
def laned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fork")
    (folder / "lanes.toml").write_text(LANED)
    return vc.build(policies.dual_rate(), recipe=str(folder / "lanes.toml"), out=folder / "laned.vlab").path


def assert_refused(*calls: Callable[[], object]) -> None:
    for call in calls:
        with pytest.raises(RuntimeFailure, match="is of another process") as caught:
            call()
        assert caught.value.status == "BAD_ARGUMENT" and len(str(caught.value).splitlines()) == 4
        assert caught.value.fix.startswith("open it in this process")


@contextmanager
def writing(session) -> Iterator[None]:
    """A camera's thread that is in `write_all`, with its locks, whenever the process is forked."""
    ended = threading.Event()

    def camera() -> None:
        while not ended.is_set():
            session.write_all(OBSERVATION)

    thread = threading.Thread(target=camera)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def calls_of(s: vc.Session) -> list[Callable[[], object]]:
    return [lambda: s.write("state", STATE["state"]), lambda: s.write_all(OBSERVATION), s.step, s.observe, s.reset,
            s.pop, lambda: s.pop_rows(2), s.queue, s.invalidate, s.stats, s.popped, lambda: s.select(None),
            lambda: s.time(1), lambda: s.stamp("state", 1, 1), lambda: s.sensor("state"), lambda: s.read("state"),
            lambda: s.step(1000), lambda: vc.Session(s.plan.name, beside=s)]


def run_alone(path: Path) -> np.ndarray:
    with vc.Session(path, threads=1) as session:
        session.write_all(OBSERVATION)
        session.step()
        return session.pop()


@pytest.mark.parametrize("threads", [1, 2])
def test_session(bundle, threads):
    expected = run_alone(bundle)
    session = vc.Session(bundle, threads=threads, parallel=2)

    def work() -> None:
        nonlocal session
        assert_refused(*calls_of(session))
        session.close()
        session.close()
        assert (run_alone(bundle) == expected).all()
        session = None

    with writing(session):
        for _ in range(FORKS):
            in_child(work)
    session.write_all(OBSERVATION)
    session.step()
    assert (session.pop() == expected).all()
    session.close()


def test_recorder(bundle, tmp_path):
    """Its thread is the parent's, and so is its file."""
    recorder = Recorder(tmp_path / "a.vlog")
    session = vc.Session(bundle, threads=1, record=recorder)

    def work() -> None:
        nonlocal recorder, session
        assert_refused(session.step, recorder.info, lambda: vc.Session(bundle, threads=1, record=recorder))
        session.close()
        recorder.close()
        session = recorder = None

    for _ in range(FORKS):
        session.write_all(OBSERVATION)
        session.step()
        in_child(work)
    session.close()
    recorder.close()
    assert recorder.info().complete and recorder.info().events > FORKS
    log = Log(tmp_path / "a.vlog")
    assert sum(1 for _ in log) > FORKS


def test_async_session(bundle):
    session = vc.AsyncSession(bundle).start()

    def work() -> None:
        nonlocal session
        assert_refused(
            lambda: session.write("state", STATE["state"]), lambda: session.write_all(OBSERVATION), session.request,
            session.pop, session.cancel, session.info, session.answer, session.start, lambda: session.select(None),
            lambda: session.begin(OBSERVATION), lambda: session.time(1), lambda: session.stamp("state", 1, 1),
            lambda: session.sensor("state"), session.session.step)
        session.close()
        session.end()
        with vc.AsyncSession(bundle) as own:
            own.begin(OBSERVATION)
            assert own.pop().status == "OK"
        session = None

    with writing(session):
        for _ in range(FORKS):
            session.request()  # the worker is inside the engine
            in_child(work)
    session.begin(OBSERVATION)
    assert session.pop().status == "OK"
    session.close()


def test_lanes(laned):
    frames = np.random.default_rng(0).integers(0, 256, (64, 1, 32, 32, 3), dtype=np.uint8)
    lanes, seen = vc.Lanes(laned), []

    def observe(lane) -> None:
        lane.write("tokens", np.zeros((1, 6), np.int64))
        lane.write("wide", frames[len(seen) % 64])
        seen.append(0)

    def work() -> None:
        nonlocal lanes
        before, lane = len(seen), lanes["slow"]
        assert_refused(lane.step, lane.interrupt, lambda: lane.start(observe), lanes.reset, lanes.popped,
                       lambda: lanes.followed("slow"), lanes.control.step, lambda: lane.write("wide", frames[0]))
        assert lane.stop() and not lane.running
        time.sleep(0.02)
        assert len(seen) == before  # the thread is the parent's alone
        lanes.close()
        lanes = lane = None

    lanes["slow"].start(observe)
    for _ in range(FORKS):
        in_child(work)
    before = len(seen)
    until = time.monotonic() + 30
    while len(seen) == before and time.monotonic() < until:
        time.sleep(1e-3)
    assert len(seen) > before and lanes["slow"].running and lanes["slow"].failure is None
    lanes.close()


def test_policy_host(bundle):
    host = PolicyHost(bundle, sessions=2)
    client = host.connect()

    def work() -> None:
        assert_refused(host.connect, lambda: host.submit(client, OBSERVATION), lambda: host.disconnect(client))
        assert not host.healthy() and host.stop(0.1)
        host.end()

    for _ in range(FORKS):
        waiting = host.submit(client, OBSERVATION)
        in_child(work)
        assert waiting.result(30).outputs["actions"].size
    assert host.healthy() and host.stop()


BEGIN = """
import os, sys, time
import numpy as np
import vlacompile as vc
from vlart.errors import RuntimeFailure
path = sys.argv[1]
observation = {"tokens": np.zeros((1, 2), np.int64), "state": np.zeros((1, 2), np.float32)}
session, asynchronous = vc.Session(path, threads=2), vc.AsyncSession(path).start()
session.write_all(observation)
session.step()
asynchronous.write_all(observation)
asynchronous.request()
"""
FORK = BEGIN + """
child = os.fork()
if child == 0:
    try:
        session.step()
    except RuntimeFailure as failure:
        print(failure.what)
    sys.exit(7)  # Python's own end, with what is to be done at it
assert os.waitpid(child, 0)[1] == 7 << 8
"""
MULTIPROCESSING = BEGIN + """
import multiprocessing
def work(number):
    try:
        session.step()
    except RuntimeFailure as failure:
        return failure.what
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    found = set(pool.map(work, range(8)))
process = context.Process(target=asynchronous.close)
process.start()
process.join(30)
assert process.exitcode == 0, process.exitcode
print(*found)
"""
LOADER = BEGIN + """
import torch
class Frames(torch.utils.data.Dataset):
    def __init__(self):
        self.session = session
    def __len__(self):
        return 8
    def __getitem__(self, index):
        try:
            self.session.step()
        except RuntimeFailure as failure:
            return failure.what
loader = torch.utils.data.DataLoader(Frames(), num_workers=2, multiprocessing_context="fork")
print(*{text for batch in loader for text in batch})
"""
GOES_ON = """
asynchronous.begin(observation)
assert asynchronous.pop().status == "OK"
session.step()
session.pop()
"""


@pytest.mark.parametrize("program", [FORK, MULTIPROCESSING, LOADER], ids=["fork", "multiprocessing", "DataLoader"])
def test_a_program(bundle, program):
    """Whoever forks: parent and child end with their own exit status, and nothing but what they print."""
    ran = subprocess.run([sys.executable, "-c", program + GOES_ON, str(bundle)], capture_output=True, text=True,
                         timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "the session is of another process", "")
