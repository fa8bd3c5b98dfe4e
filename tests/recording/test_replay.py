"""A recording replayed on its bundle gives the same bits, whichever way the session was driven; on another bundle it
names the value with which the two part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import recorded_robot as robot
from vlart.errors import BundleError, ParityError, RuntimeFailure
from vlart.recording.log import Log
from vlart.recording.replayed import replay

CONSUME = ("queue", "realtime", "ensemble")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """{consume: bundle}, and another one of the first, whose camera is weighed otherwise."""
    folder = tmp_path_factory.mktemp("recording")
    return {c: robot.built(folder, c) for c in CONSUME} | {"other": robot.built(folder, gain=1.5)}


@pytest.mark.parametrize("consume", CONSUME)
def test_a_session_to_the_bit(bundles, tmp_path, consume):
    with vc.Session(bundles[consume], record=tmp_path / "a.vlog") as session:
        robot.drive(session, execute=1 if consume == "ensemble" else robot.EXECUTE)
    log = Log(tmp_path / "a.vlog")
    found = replay(log, bundles[consume])
    assert found.equal and found.same_bundle and not found.skipped and found.lost == (0, 0)
    assert found.steps == found.chunks == 8
    assert found.actions == sum(len(e.actions) for e in log if e.kind == "pop") > 0
    found.require()


@pytest.mark.parametrize("consume", CONSUME)
def test_asynchronous_control_to_the_bit(bundles, tmp_path, consume):
    with vc.AsyncSession(bundles[consume], record=tmp_path / "a.vlog", deadline_ticks=3, stale_ticks=1) as session:
        robot.drive_async(session)
    log = Log(tmp_path / "a.vlog")
    found = replay(log, bundles[consume])
    assert found.parted is None and not found.skipped and found.chunks > 3 and found.actions > 60, found
    assert {e.role for e in log} == {"session", "control"}


MISSED = 17  # VLART_STATUS_DEADLINE_MISSED


def test_what_a_deadline_cut_is_cut_again(bundles, tmp_path):
    """Steps are made to end before a stage, as a deadline ends them: no clock does that at the same place twice."""
    with vc.Session(bundles["queue"], record=tmp_path / "a.vlog") as session:
        rng, statuses = np.random.default_rng(0), []
        session.write(robot.TOKENS, robot.tokens(1))
        for k in range(12):
            for name, array in robot.observation(rng).items():
                session.write(name, array)
            if k % 2:
                session.stop_before(k % len(session.plan.stages), MISSED)
            try:
                session.step()
                statuses.append("OK")
            except RuntimeFailure as failure:
                statuses.append(failure.status)
            while session.queue().remaining:
                session.pop()
    assert {"OK", "DEADLINE_MISSED"} == set(statuses)
    log = Log(tmp_path / "a.vlog")
    found = replay(log, bundles["queue"])
    assert found.equal and found.steps == 12 and found.chunks == statuses.count("OK")
    assert len({e.fields["stop_stage"] for e in log if e.kind == "step"}) > 2


def test_another_bundle_is_refused_and_compared_when_asked_for(bundles, tmp_path):
    with vc.Session(bundles["queue"], record=tmp_path / "a.vlog") as session:
        robot.drive(session, replans=2)
    log = Log(tmp_path / "a.vlog")
    with pytest.raises(BundleError, match="another bundle") as refused:
        replay(log, bundles["other"])
    assert "--other-bundle" in refused.value.fix
    parted = replay(log, bundles["other"], other_bundle=True)
    assert not parted.equal and parted.parted.what == "the chunk" and parted.parted.step == 0
    want, got = parted.parted.want, parted.parted.got
    assert want != got and len(parted.parted.at) == 2
    with pytest.raises(ParityError, match="the chunk"):
        parted.require()
    aside = replay(log, bundles["other"], other_bundle=True, against=bundles["queue"])
    assert aside.parted.of_values and aside.parted.what == '"vision.wrist.0" of stage "vision.wrist"'
    again = replay(log, bundles["queue"], against=bundles["queue"])
    assert again.equal


class Gripping(robot.Seeing):
    def forward(self, grip, **inputs):
        return {"action": super().forward(**inputs)["action"] + grip}


def test_a_bundle_that_takes_more_than_was_recorded(bundles, tmp_path):
    examples = {robot.TOKENS: torch.zeros(1, 2, dtype=torch.int64), robot.STATE: torch.rand(1, robot.DIM),
                robot.CAMERA: torch.zeros(1, 6, 8, 3, dtype=torch.uint8), "grip": torch.zeros(1, 1)}
    sources = {n: vc.Source("task" if n == robot.TOKENS else "observation") for n in examples}
    more = vc.build(vc.Policy("gripping", Gripping(1.0).eval(), sources, examples), out=tmp_path / "m.vlab").path
    with vc.Session(bundles["queue"], record=tmp_path / "a.vlog") as session:
        robot.drive(session, replans=2)
    for asked in ({"other_bundle": True}, {"against": more}):
        with pytest.raises(BundleError, match='takes "grip", which was not recorded'):
            replay(Log(tmp_path / "a.vlog"), more if "other_bundle" in asked else bundles["queue"], **asked)


def test_a_changed_bit_is_found(bundles, tmp_path):
    """Negative control: a replay that is given another input differs at the step with it."""
    with vc.Session(bundles["queue"], record=tmp_path / "a.vlog") as session:
        robot.drive(session, episodes=1, replans=3)
    log = Log(tmp_path / "a.vlog")
    content, seen = log.content, []

    def changed(event):
        array = content(event)
        seen.append(event)
        return array + 1 if len(seen) == 5 else array  # the camera of the third observation

    log.content = changed
    found = replay(log, bundles["queue"])
    assert found.parted is not None and found.parted.step == 2


def test_checksums_alone_cannot_be_replayed(bundles, tmp_path):
    with vc.Recorder(tmp_path / "a.vlog", content=False) as recorder, vc.Session(bundles["queue"],
                                                                                record=recorder) as session:
        robot.drive(session, episodes=1)
    log = Log(tmp_path / "a.vlog")
    assert not log.full and all(not e.has("full") for e in log if e.kind == "source")
    with pytest.raises(BundleError, match="no content"):
        replay(log, bundles["queue"])


def test_what_was_overwritten_is_skipped(bundles, tmp_path):
    """A small ring keeps the last episodes; the replay begins with the first that is whole."""
    with vc.Recorder(tmp_path / "a.vlog", mib=1 / 16) as recorder, vc.Session(bundles["queue"],
                                                                             record=recorder) as session:
        robot.drive(session, episodes=60)
    assert recorder.info().laps >= 1
    log = Log(tmp_path / "a.vlog")
    found = replay(log, bundles["queue"])
    assert found.equal and found.skipped and found.chunks >= 20


@pytest.mark.parametrize("consume", CONSUME)
def test_an_overwritten_beginning_of_asynchronous_control(bundles, tmp_path, consume):
    """With a worker's thread: as on a busy machine, requests overlap or do not."""
    with vc.Recorder(tmp_path / "a.vlog", mib=1 / 16) as recorder, vc.AsyncSession(bundles[consume],
                                                                                  record=recorder) as session:
        for _ in range(8):
            robot.drive_async(session, 60, period=2e-3)
            session.cancel("episode")
    assert recorder.info().laps >= 1
    found = replay(Log(tmp_path / "a.vlog"), bundles[consume])  # where it began anew may be where a state is known
    assert found.parted is None and found.chunks and found.actions, found


def test_every_cut_replays_equal(bundles, tmp_path):
    """A file that lost any part: what a replay can use of it is what was."""
    path = tmp_path / "a.vlog"
    with vc.Recorder(path, mib=1 / 16) as recorder, vc.Session(bundles["queue"], record=recorder) as session:
        robot.drive(session, episodes=6)
    data, rng, compared = path.read_bytes(), np.random.default_rng(0), 0
    head = len(data) - (1 << 16)
    for number in range(40):
        left = bytearray(data)
        if number % 2:
            del left[int(rng.integers(head, len(data))):]
        else:
            at = int(rng.integers(head, len(data)))
            left[at: (at // 4096 + 1) * 4096] = bytes((at // 4096 + 1) * 4096 - at)
        (tmp_path / "cut.vlog").write_bytes(left)
        found = replay(Log(tmp_path / "cut.vlog"), bundles["queue"])
        assert found.parted is None
        compared += found.chunks
    assert compared > 100
