"""The phases of a build: their order, their frozen results, and what they print."""

from __future__ import annotations

import dataclasses
import json

import pytest

import vlacompile as vc
from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.phases.phase import Phase, phase
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.pipeline import run, until
from vlart.bundle.plan.text import parse_plan
from vlart.errors import CaptureError, ParityError, VlaError

TINY = "tests.samples.cli_policies:tiny"


@pytest.fixture(scope="module")
def results(every_stage, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("phases") / "late_fusion.vlab"
    return dict(run(read_inputs(policies.late_fusion(), "host", str(every_stage), out)))


def test_every_phase_gives_a_frozen_result_in_the_order_of_its_name(results):
    assert list(results) == list(Phase)
    for name, result in results.items():
        field = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, None)
        assert result.text().endswith("\n") and len(result.text().splitlines()) > 3, name


@pytest.mark.parametrize("name", [Phase.READ_INPUTS, Phase.CAPTURE, Phase.FIND_STAGES, Phase.EMIT])
def test_what_a_phase_prints(results, golden, name):
    golden(f"late_fusion.{name}.txt", results[name].text())


def test_the_plan_is_made_once(results):
    """What the last phase wrote is what the one before it made, to the last field."""
    assert results[Phase.PUBLISH].plan == results[Phase.ASSEMBLE].plan
    assert parse_plan(results[Phase.ASSEMBLE].text()) == results[Phase.ASSEMBLE].plan


def test_a_build_that_stops_early_does_not_go_on(every_stage, tmp_path):
    said: list[str] = []
    inputs = read_inputs(policies.flow(), "host", str(every_stage), tmp_path / "no.vlab", progress=said.append)
    staging = until(Phase.FIND_STAGES, inputs, said.append)
    assert [s.name for s in staging.staged.stages] and not list(tmp_path.iterdir())
    assert {line.partition(":")[0] for line in said} == {"read-inputs", "capture", "find-stages"}


def test_an_error_knows_its_phase(tmp_path):
    def observe(state):
        return {"action": state * (2 if state.sum() > 0 else 1)}

    policy = vc.Policy("branching", observe, {"state": vc.Source("observation")}, {"state": policies.torch.randn(1, 4)})
    with pytest.raises(CaptureError) as raised:
        vc.build(policy, out=tmp_path / "no.vlab")
    assert raised.value.phase == "capture" and raised.value.as_dict()["phase"] == "capture"
    with pytest.raises(VlaError) as raised:
        vc.build(policy, target="hots")
    assert raised.value.phase == "read-inputs"


def test_a_phase_within_a_phase_speaks_for_itself():
    @phase(Phase.CAPTURE)
    def inner(*, progress):
        progress("look")
        raise ParityError("what", where="where", why="why", fix="fix")

    @phase(Phase.EMIT)
    def outer(*, progress):
        progress("begin")
        inner(progress=progress)

    said: list[str] = []
    with pytest.raises(ParityError) as raised:
        outer(progress=said.append)
    assert said == ["emit: begin", "capture: look"] and raised.value.phase == "capture"


@pytest.mark.parametrize("name", list(Phase)[:-1])
def test_stop_after_prints_and_writes_nothing(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["build", TINY, "--stop-after", name]) == 0
    assert capsys.readouterr().out.count("\n") > 3 and not list(tmp_path.iterdir())


def test_stop_after_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["build", TINY, "--stop-after", "find-stages", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["phase"] == "find-stages" and document["text"].startswith('stage "fusion"')
