"""Which engine runs a stage: all in OpenVINO, the fastest of each, and what is refused."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import vlacompile as vc
from tests.samples import policies
from vlacompile.compiler.assemble.choose_engines import choose_engines, with_engines
from vlacompile.hardware.target import load_target
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import with_files
from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.plan import Concurrency
from vlart.bundle.plan.text import parse_plan
from vlart.errors import ConfigError
from vlart.runtime.library import openvino_library
from vlart.runtime.session import Session
from vlart.verify.frames import golden_frames
from vlart.verify.replay import replay

needs_openvino = pytest.mark.skipif(openvino_library() is None, reason="pip install 'vlacompile[openvino]'")


def recipe(folder: Path, text: str) -> str:
    path = folder / "engines.toml"
    path.write_text(policies.EVERY_STAGE.replace("[stages]\n", f"[stages]\n{text}\n"), encoding="utf-8")
    return str(path)


def contents_of(bundle: vc.Bundle) -> dict[str, bytes]:
    return {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}


def chosen(plan, contents, frames):
    return choose_engines(plan, contents, frames, ("action",), ("openvino",), 1, lambda line: None)


@needs_openvino
@pytest.mark.parametrize("policy", [policies.late_fusion, policies.flow])
def test_every_stage_in_openvino_is_the_policy(tmp_path, policy):
    made = vc.build(policy(), recipe=recipe(tmp_path, 'engine = "openvino"'), out=tmp_path / "a.vlab")
    assert {s.backend for s in made.plan.stages} == {"openvino"} and made.accepted.passed
    assert replay(made.path, golden_frames(made.path), ("action",), stand_in=True).passed, "the same ONNX files"


@needs_openvino
def test_auto_takes_the_faster_engine_and_says_what_it_measured(tmp_path):
    made = vc.build(policies.flow(), recipe=recipe(tmp_path, 'engine = "auto"'), out=tmp_path / "a.vlab")
    found, notes = made.manifest["provenance"]["engines"], made.manifest["provenance"]["notes"]
    assert set(found["stages"]) == {s.name for s in made.plan.stages}
    assert made.plan.concurrency == Concurrency(1, 1) and not found["steps_us"]
    for stage in made.plan.stages:
        engine, us = (found["stages"][stage.name][key] for key in ("engine", "us"))
        assert engine == stage.backend and set(us) == {"onnxruntime", "openvino"} and min(us.values()) > 0
        assert engine == "onnxruntime" or us["openvino"] < us["onnxruntime"]
        assert any(n.startswith(f"engines: {stage.name}: {engine} (") for n in notes)


@needs_openvino
def test_an_engine_is_not_offered_what_it_computes_otherwise(late_fusion_bundle):
    frames = golden_frames(late_fusion_bundle.path)
    expected = frames[0].expects["state.0"]
    wrong = replace(frames[0], expects=frames[0].expects | {"state.0": replace(expected, array=expected.array + 1)})
    found = chosen(late_fusion_bundle.plan, contents_of(late_fusion_bundle), [wrong])
    assert set(found.engines.values()) == {"onnxruntime"} and not found.times
    assert 'engines: state: not in openvino: "state.0" differs from PyTorch' in found.notes


@needs_openvino
def test_an_engine_is_not_offered_what_it_cannot_read(late_fusion_bundle):
    contents = contents_of(late_fusion_bundle)
    model = onnx.ModelProto.FromString(contents["stages/state.onnx"])
    model.graph.node[0].op_type = "NotOfOpenvino"
    contents["stages/state.onnx"] = model.SerializeToString()
    plan = with_files(late_fusion_bundle.plan, contents)
    others = {s.name: "openvino" for s in plan.stages if s.name != "state"}
    found = chosen(with_engines(plan, others), contents, golden_frames(late_fusion_bundle.path))
    assert found.engines == {"state": "onnxruntime"} and not found.times
    assert found.notes[0].startswith("engines: state: not in openvino: ") and "ONNX node" in found.notes[0]


def test_without_openvino_auto_leaves_the_targets_engine(tmp_path, monkeypatch):
    monkeypatch.setattr("vlacompile.phases.assemble.openvino_library", lambda: None)
    made = vc.build(policies.late_fusion(), recipe=recipe(tmp_path, 'engine = "auto"'), out=tmp_path / "a.vlab")
    assert {s.backend for s in made.plan.stages} == {"onnxruntime"}
    found = made.manifest["provenance"]["engines"]
    assert (found["threads"], found["parallel"], found["stages"]) == (1, 1, {})


def test_of_two_threads_each_stage_has_both_or_two_stages_have_one(tmp_path):
    made = vc.build(policies.late_fusion(), recipe=recipe(tmp_path, 'engine = "auto"\nthreads = 2'),
                    out=tmp_path / "a.vlab")
    found, timed = made.manifest["provenance"]["engines"], made.plan.concurrency
    assert set(found["steps_us"]) == {"1x1", "1x2", "2x1"} and (found["threads"], found["parallel"]) == astuple(timed)
    assert found["steps_us"][f"{timed.threads}x{timed.parallel}"] <= found["steps_us"]["1x1"]
    line = f"concurrency threads={timed.threads} parallel={timed.parallel}\n"
    assert line in made.text() and parse_plan(made.text()) == made.plan == read_plan(made.path / "plan.bin")
    assert replay(made.path, golden_frames(made.path), ("action",)).passed


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("vlacompile.phases.read_inputs.openvino_library", lambda: None)
    with pytest.raises(ConfigError, match="OpenVINO is not installed") as error:
        vc.build(policies.late_fusion(), recipe=recipe(tmp_path, 'engine = "openvino"'), out=tmp_path / "a.vlab")
    assert error.value.fix == "pip install 'vlacompile[openvino]'" and not (tmp_path / "a.vlab").exists()


@needs_openvino
def test_a_bundle_whose_engine_is_not_there_is_refused_and_runs_only_where_told_to(tmp_path, monkeypatch, cli):
    made = vc.build(policies.late_fusion(), recipe=recipe(tmp_path, 'engine = "openvino"'), out=tmp_path / "a.vlab")
    monkeypatch.setenv("VLART_OPENVINO", str(tmp_path / "libopenvino_c.so"))
    code, _, err = cli("run", made.path)
    assert code == 9 and "OpenVINO cannot be loaded" in err and "pip install openvino" in err
    with Session(made.path, stand_in=True) as session:
        for name, array in golden_frames(made.path)[0].writes.items():
            session.write(name, array)
        session.step()
        assert np.isfinite(session.pop()).all()


@pytest.mark.parametrize("text, target, why", [
    ('engine = "openvno"', "host", "openvino"),
    ('engine = "openvino"', "orin-nano-8gb", "engine of its own"),
    ("threads = 0", "host", "1 to 1024"),
])
def test_keys_that_mean_nothing_are_refused(tmp_path, text, target, why):
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe(tmp_path, text), load_target(target))
    assert why in error.value.why and error.value.what.startswith(f"stages.{text.split()[0]}")


def test_another_processors_stages_are_not_timed_here(tmp_path):
    other = replace(load_target("host"), processor="not this one")
    with pytest.raises(ConfigError, match="auto") as error:
        load_recipe(recipe(tmp_path, 'engine = "auto"'), other)
    assert "name an engine" in error.value.why
