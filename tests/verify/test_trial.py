"""A bundle's first run is a child with limits; what it does there does not reach the program that asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import vlacompile as vc
from vlacompile.cli.main import main
from vlart.bundle.directory import GOLDEN_FILE, read_bundle, with_files, write_bundle
from vlart.errors import BundleError, ParityError, RuntimeFailure
from vlart.runtime import programs
from vlart.verify import trial
from vlart.verify.frames import frames_bytes, read_frames
from vlart.verify.replay import replay
from vlart.verify.trial import TrialLimits, try_bundle


def constant(name: str, value) -> object:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def endless(graph) -> list:
    """The output after a loop whose condition stays true and depends on an input."""
    given = graph.input[0]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["a"], ["b"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("a", given.type.tensor_type.elem_type, None)],
        [helper.make_tensor_value_info("on", 9, []),
         helper.make_tensor_value_info("b", given.type.tensor_type.elem_type, None)])
    return [constant("most_", np.int64(2**62)), constant("true_", np.bool_(True)),
            helper.make_node("Loop", ["most_", "true_", given.name], ["held_"], body=body), *outputs(graph, "held_")]


def enormous(graph) -> list:
    return [constant("shape_", np.array([4, 1 << 30], np.int64)),
            helper.make_node("ConstantOfShape", ["shape_"], ["many_"]), *outputs(graph, "many_")]


def outputs(graph, after: str) -> list:
    """All outputs, of zeros that are computed after a value."""
    nodes = [helper.make_node("ReduceMin", [after], ["least_"], keepdims=0),
             helper.make_node("Cast", ["least_"], ["number_"], to=1)]
    for i, out in enumerate(graph.output):
        dims = [d.dim_value for d in out.type.tensor_type.shape.dim]
        nodes += [constant(f"dims_{i}", np.array(dims, np.int64)),
                  helper.make_node("Expand", ["number_", f"dims_{i}"], [out.name])]
    return nodes


def hostile(bundle: vc.Bundle, out: Path, nodes) -> Path:
    """The bundle with another graph in its last stage; every checksum is right."""
    import onnx

    contents = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    stage = bundle.plan.stages[-1]
    path = bundle.plan.files[stage.artefact].path
    model = onnx.load_model_from_string(contents[path])
    made = nodes(model.graph)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(made)
    contents[path] = model.SerializeToString()
    stages = (*bundle.plan.stages[:-1], replace(stage, initializers=()))
    plan = with_files(replace(bundle.plan, stages=stages), contents)
    write_bundle(out, plan, contents, bundle.manifest["provenance"], lambda new: None)
    return out


def test_an_honest_bundle_passes(late_fusion_bundle):
    try_bundle(late_fusion_bundle.path, limits=TrialLimits(seconds=60))


def test_a_bundle_without_end_is_ended(late_fusion_bundle, tmp_path):
    root, began = hostile(late_fusion_bundle, tmp_path / "endless.vlab", endless), time.monotonic()
    with pytest.raises(RuntimeFailure, match="the run does not end") as caught:
        try_bundle(root, limits=TrialLimits(seconds=4))
    assert time.monotonic() - began < 40 and "4 seconds" in caught.value.why


def test_a_bundle_that_takes_all_memory_is_refused_by_every_verb(late_fusion_bundle, tmp_path, capsys):
    root = hostile(late_fusion_bundle, tmp_path / "enormous.vlab", enormous)
    for verb in (["verify", str(root)], ["serve", str(root), "--port", "0"]):
        assert main([*verb, "--json"]) == 9
        assert "17179869184" in json.loads(capsys.readouterr().out)["why"]


def test_a_crash_is_told(late_fusion_bundle, tmp_path, monkeypatch):
    source, engine = tmp_path / "engine.c", tmp_path / "libonnxruntime.so"
    source.write_text("#include <signal.h>\n__attribute__((constructor)) void start(void) { raise(SIGSEGV); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", engine, source], check=True)
    monkeypatch.setattr(programs, "onnxruntime_library", lambda: engine)
    with pytest.raises(RuntimeFailure, match="the run crashed") as caught:
        try_bundle(late_fusion_bundle.path)
    assert "signal 11" in caught.value.why and str(late_fusion_bundle.path) in caught.value.where


def test_a_program_that_says_nothing_is_told(late_fusion_bundle, tmp_path, monkeypatch):
    program = tmp_path / "vlart-run"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(trial, "native_file", lambda name: program)
    with pytest.raises(RuntimeFailure, match="the bundle crashes") as caught:
        try_bundle(late_fusion_bundle.path)
    assert "-11" in caught.value.why


@pytest.mark.parametrize("keep", [lambda f: False, lambda f: True], ids=["none", "without expectations"])
def test_no_golden_frames_prove_nothing(late_fusion_bundle, tmp_path, keep):
    bundle = late_fusion_bundle
    contents = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files}
    frames = [replace(f, expects={}, references={}) for f in read_frames(bundle.path / GOLDEN_FILE) if keep(f)]
    contents[GOLDEN_FILE] = frames_bytes(frames)
    out = tmp_path / "unproven.vlab"
    write_bundle(out, with_files(bundle.plan, contents), contents, bundle.manifest["provenance"], lambda new: None)
    with pytest.raises(BundleError, match="no golden frames"):
        vc.verify(out)
    report = replay(out, frames, ())
    assert not report.passed
    with pytest.raises(ParityError, match="nothing was compared"):
        report.require()


def test_a_bundle_without_a_golden_file_proves_nothing(late_fusion_bundle, tmp_path):
    shutil.copytree(late_fusion_bundle.path, tmp_path / "a.vlab")
    bundle = read_bundle(tmp_path / "a.vlab")
    contents = {f.path: (bundle.path / f.path).read_bytes() for f in bundle.plan.files if f.path != GOLDEN_FILE}
    out = tmp_path / "b.vlab"
    write_bundle(out, with_files(bundle.plan, contents), contents, bundle.manifest["provenance"], lambda new: None)
    with pytest.raises(BundleError):
        vc.verify(out)
