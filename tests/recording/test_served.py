"""What a server and a router record beside a session: every client's steps, every decision with its outcome."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import vlacompile as vc
from tests.runtime_c.running import RUNTIME
from tests.samples import recorded_robot as robot
from vlart.errors import RuntimeFailure
from vlart.recording.log import Log
from vlart.recording.replayed import replay
from vlart.runtime.recorder import recorded_words
from vlart.runtime.router import Router
from vlart.serve.policy_host import PolicyHost

sys.path.insert(0, str(RUNTIME / "tests"))
from sample_routing import sample_bytes


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return robot.built(tmp_path_factory.mktemp("served"))


def test_a_server_records_all_clients(bundle, tmp_path):
    recorder = vc.Recorder(tmp_path / "a.vlog", tracks=2)
    host = PolicyHost(bundle, sessions=2, threads=1, record=recorder)
    rng = np.random.default_rng(0)
    clients = [host.connect() for _ in range(3)]
    for k in range(12):
        seen = robot.observation(rng) | {robot.TOKENS: robot.tokens(k)}
        assert host.submit(clients[k % 3], seen).result().outputs["actions"].shape == (robot.H, robot.DIM)
    assert host.stop() and host.recorded == recorder.info() and recorder.info().complete
    log = Log(tmp_path / "a.vlog")
    assert {e.track for e in log if e.kind == "step"} == {0, 1}
    found = replay(log, bundle)
    assert found.equal and found.chunks == 12
    assert "none lost" in recorded_words(recorder)


def test_a_router_records_its_decisions(bundle, tmp_path):
    table = tmp_path / "table.bin"
    table.write_bytes(sample_bytes())
    router = Router(table)
    with vc.Recorder(tmp_path / "a.vlog") as recorder, vc.Session(bundle, record=recorder):
        router.record(recorder)
        with pytest.raises(RuntimeFailure, match="router_record"):
            router.record(recorder)
        decided = router.decide("Turn on the stove")
        router.report_outcome(True)
        router.close()
        router.decide("Turn on the stove")  # is not recorded any more
    found = [e for e in Log(tmp_path / "a.vlog") if e.role == "router"]
    assert [e.kind for e in found] == ["decision", "outcome"]
    decision, outcome = found
    assert decision.text == decided.text and decision.fields["route"] == decided.route
    assert router.backbones[int(decision.number("backbone"))] == decided.backbone
    assert decision.fields["probability"][: len(decided.probability)] == decided.probability
    assert outcome.fields["index"] == 1 and outcome.fields["number"] == decided.sequence == 1
