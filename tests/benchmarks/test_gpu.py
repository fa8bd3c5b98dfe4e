"""The script for a discrete GPU: its budgets, what ends a step, and that a rehearsal is never recorded as a GPU's."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import vlacompile as vc
from benchmarks import gpu, gpu_steps
from benchmarks.onnx_in_torch import opened
from tests.deploy.stand_ins import executable
from tests.samples import policies
from vlacompile.check.tensorrt_python import verify_stages
from vlart.errors import ConfigError, SourceError


def test_all_budgets_are_ten_minutes():
    assert sum(gpu.BUDGETS.values()) <= gpu.MOST_S == 600 and list(gpu.BUDGETS) == list(gpu_steps.STEPS)


def step(tmp_path, program: str, budget_s: float = 20.0) -> gpu.Result:
    return gpu.run_step("x", [sys.executable, "-c", program], budget_s, tmp_path / "log")


def test_what_a_step_says_is_its_result(tmp_path):
    found = step(tmp_path, "print('words'); print('{\"status\": \"passed\", \"figures\": {\"n\": 3}}')")
    assert (found.status, found.figures) == ("passed", {"n": 3}) and "words" in (tmp_path / "log").read_text()
    found = step(tmp_path, "print('{\"status\": \"skipped\", \"why\": \"no triton\"}')")
    assert (found.status, found.why) == ("skipped", "no triton")


@pytest.mark.parametrize(("program", "why"), [
    ("import os; os.kill(os.getpid(), 11)", "status -11"), ("print('not JSON')", "not JSON"), ("", "it said nothing"),
    ("print('{\"status\": \"passed\"'); raise SystemExit(3)", "status 3"), ("print('[]')", "status 0")])
def test_a_step_that_crashes_is_no_pass(tmp_path, program, why):
    found = step(tmp_path, program)
    assert found.status == "crashed" and why in found.why


def test_a_step_that_hangs_ends_with_what_it_started(tmp_path):
    child = tmp_path / "child"
    found = step(tmp_path, "import subprocess, time\np = subprocess.Popen(['sleep', '60'])\n"
                 f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)", 5.0)
    assert found.status == "out of time" and found.seconds < 20
    for _ in range(50):
        stat = Path(f"/proc/{child.read_text()}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the child of the step goes on")


def test_without_a_gpu_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin-without-nvidia-smi")
    with pytest.raises(ConfigError, match="there is no GPU here") as error:
        gpu.rehearse_or_record("cuda", ["machine", "products"], progress=lambda words: None,
                               recorded=tmp_path / "gpu", rehearsed=tmp_path / "cpu")
    assert "--device cpu rehearses" in error.value.fix and not list(tmp_path.iterdir())


def test_a_rehearsal_says_so_and_is_not_recorded(tmp_path):
    words: list[str] = []
    document, path = gpu.rehearse_or_record("cpu", ["machine", "products", "tensorrt"], progress=words.append,
                                            recorded=tmp_path / "gpu", rehearsed=tmp_path / "cpu")
    assert path == tmp_path / "cpu" / "rehearsal.json" and not (tmp_path / "gpu").exists()
    assert document == json.loads(path.read_text()) and document["rehearsal"] and "rehearsal" in document["label"]
    machine, products, tensorrt = document["results"]
    assert machine["status"] == products["status"] == "passed" and tensorrt["status"] == "skipped" and tensorrt["why"]
    (figures,) = products["figures"].values()
    assert 0 < figures["sums in f32"] <= 1 and figures["int8 differs in"] == 0
    assert words[0] == "machine (at most 20 s)" and "passed" in words[1]
    assert "== products" in path.with_suffix(".log").read_text()


def test_a_gpus_record(tmp_path):
    """A double of the steps: which file it becomes, and what it says."""
    told = json.dumps({"status": "passed", "figures": {"gpu": ["NVIDIA H200 NVL, 9.0, 143771 MiB, 580.1"]}})
    steps = executable(tmp_path / "python", f"#!/bin/sh\necho '{told}'\n")
    document, path = gpu.rehearse_or_record("cuda", ["machine", "products"], python=str(steps),
                                            progress=lambda words: None, recorded=tmp_path / "gpu")
    assert path == tmp_path / "gpu" / "nvidia-h200-nvl.json" and not document["rehearsal"]
    assert document["label"] == gpu.LABELS["cuda"]


def graph(per_channel: bool = True, block: int = 0, zero: str = "zero") -> onnx.ModelProto:
    """x -> quantised -> product with an int8 weight, in fp16."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (32, 16)).astype(np.int8)
    scale = (rng.random((2, 16)) if block else rng.random(16)).astype(np.float16) / 64 + np.float16(1e-3)
    scale = scale if per_channel else scale[0]
    how = {"block_size": block, "axis": 0} if block else {"axis": 1}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", zero], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
             helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], **how),
             helper.make_node("MatMul", ["d", "wd"], ["y"])]
    arrays = {"w": weight, "ws": scale, "s": np.array(0.03, np.float16), "zero": np.array(0, np.int8),
              "one": np.array(1, np.int8)}
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, dims) for n, dims in
            (("x", [8, 32]), ("y", [8, 16]), ("d", [8, 32]), ("wd", [32, 16]))]
    info.append(helper.make_tensor_value_info("q", TensorProto.INT8, [8, 32]))
    made = helper.make_graph(nodes, "g", info[:1], info[1:2], value_info=info[2:],
                             initializer=[onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantisation_in_pytorch_is_that_of_onnx(tmp_path, per_channel):
    path = tmp_path / "g.onnx"
    onnx.save(graph(per_channel), path)
    x = np.random.default_rng(1).normal(0, 2, (8, 32)).astype(np.float16)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (want,) = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    with opened(path, "cpu") as run:
        got = run({"x": x})["y"]
        other = run({"x": x + np.float16(0.5)})["y"]
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=2e-3, atol=2e-2)
    assert np.abs(other.astype(np.float32) - want).max() > 0.1, "the control: it computes with what it is given"
    assert x.max() > 127 * 0.03, "some of it is clipped"


@pytest.mark.parametrize(("how", "why"), [({"block": 16}, "in blocks"), ({"zero": "one"}, "not to symmetric int8"),
                                          ({"zero": ""}, "not to symmetric int8")])
def test_other_quantisation_is_refused(tmp_path, how, why):
    onnx.save(graph(**how), tmp_path / "g.onnx")
    with pytest.raises(SourceError, match=why), opened(tmp_path / "g.onnx", "cpu"):
        pass


def test_emitted_graphs_in_pytorch_are_within_what_was_predicted(tmp_path):
    """The step's own comparison, on a board's bundle in fp16; the control: another weight is outside."""
    bundle = vc.build(policies.late_fusion(), target="orin-nano-8gb", out=tmp_path / "nano.vlab")
    (stage,) = bundle.plan.stages
    path = bundle.path / bundle.plan.files[stage.artefact].path
    report = verify_stages(bundle, [stage], lambda s: opened(path, "cpu"))
    assert report.passed and report.runs == {stage.name: report.frames} and report.frames > 5

    @contextlib.contextmanager
    def other(_stage):
        with opened(path, "cpu") as run:
            yield lambda feed: {n: a * 1.05 for n, a in run(feed).items()}
    assert not verify_stages(bundle, [stage], other).passed
