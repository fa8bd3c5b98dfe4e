"""A program may end without closing anything: it ends with its own exit status, not with the engine's memory freed
beneath a thread that is inside the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vlacompile as vc
from tests.runtime.test_async_session import built
from tests.samples import policies
from vlart.recording.log import Log
from vlart.recording.replayed import replay

ROOT = Path(__file__).parents[2]
BEGIN = "import sys, time\nimport numpy as np\nimport vlacompile as vc\n"
ASYNC = BEGIN + """
session = vc.AsyncSession(sys.argv[1]).start()
session.write("tokens", np.zeros((1, 2), np.int64))
session.write("state", np.zeros((1, 2), np.float32))
session.request()
time.sleep(float(sys.argv[2]))
"""
LANES = BEGIN + """
lanes, frames = vc.Lanes(sys.argv[1]), np.random.default_rng(0).integers(0, 256, (64, 1, 32, 32, 3), dtype=np.uint8)
seen = []
def observe(lane):
    lane.write("tokens", np.zeros((1, 6), np.int64))
    lane.write("wide", frames[len(seen) % 64])
    seen.append(0)
lanes["slow"].start(observe)
while len(seen) < 50:
    time.sleep(1e-3)
time.sleep(float(sys.argv[2]))
"""
WAITING = LANES.replace("    seen.append(0)", "    seen.append(0)\n    while len(seen) >= 50:\n        time.sleep(0.1)")
SERVED = BEGIN + """
from vlart.serve.policy_host import PolicyHost
host = PolicyHost(sys.argv[1])
host.submit(host.connect(), {"tokens": np.zeros((1, 2), np.int64), "state": np.zeros((1, 2), np.float32)})
time.sleep(float(sys.argv[2]))
"""
FAILING = ASYNC + "raise SystemExit(3)\n"
INTERRUPTED = ASYNC + "raise KeyboardInterrupt\n"
LEAVING = LANES.replace("    seen.append(0)", "    seen.append(0)\n    if len(seen) >= 50:\n        sys.exit(5)")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> Path:
    """Its inference takes tens of milliseconds."""
    return built(tmp_path_factory.mktemp("exit"), "queue", 4096).path


@pytest.fixture(scope="module")
def laned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exit")
    recipe = folder / "lanes.toml"
    recipe.write_text(policies.EVERY_STAGE + '[[lane]]\nname = "slow"\nsources = ["tokens", "wide"]\nclock_hz = 8\n',
                      encoding="utf-8")
    return vc.build(policies.dual_rate(), recipe=str(recipe), out=folder / "two.vlab").path


def exit_status(program: str, bundle: Path, wait_s: float) -> tuple[int, str]:
    ran = subprocess.run([sys.executable, "-c", program, str(bundle), str(wait_s)], capture_output=True, text=True,
                         timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("wait_s", [0.0, 0.001, 0.01])
@pytest.mark.parametrize(("program", "status"), [(ASYNC, 0), (FAILING, 3), (SERVED, 0)],
                         ids=["async", "failing", "served"])
def test_a_program_ends_while_a_chunk_is_computed(heavy, program, status, wait_s):
    assert exit_status(program, heavy, wait_s) == (status, "")


def test_an_interrupted_program_ends_as_one(heavy):
    status, said = exit_status(INTERRUPTED, heavy, 0.001)
    assert status == -signal.SIGINT and said.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize("program", [LANES, WAITING, LEAVING], ids=["stepping", "waiting", "leaving"])
def test_a_program_ends_while_a_lane_runs(laned, program):
    assert exit_status(program, laned, 0.0) == (0, "")


RECORDED = BEGIN + """
record = vc.Recorder(sys.argv[2]) if sys.argv[4] == "recorder" else sys.argv[2]
session = vc.Session(sys.argv[1], record=record)
for k in range(3):
    session.write("tokens", np.full((1, 2), k, np.int64))
    session.write("state", np.zeros((1, 2), np.float32))
    session.step()
    session.pop()
if sys.argv[3] == "beside":
    running = vc.AsyncSession(sys.argv[1]).start()
    running.request()
"""


@pytest.mark.parametrize("beside", ["alone", "beside"])
@pytest.mark.parametrize("record", ["path", "recorder"])
def test_a_recording_that_nobody_closed_is_whole(heavy, tmp_path, record, beside):
    log = tmp_path / "robot.vlog"
    ran = subprocess.run([sys.executable, "-c", RECORDED, str(heavy), str(log), beside, record], capture_output=True,
                         text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ran.returncode == 0 and not ran.stderr, (ran.returncode, ran.stderr)
    found = replay(Log(log), heavy)
    assert found.parted is None and (found.steps, found.chunks, found.actions) == (3, 3, 3) and not found.cut_bytes
