"""A bundle can be whole and well formed, and its ONNX files still have no end, take all memory or crash the engine: the
first run is a child with limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sample_bundles import Bundle, Reactive

from tests.runtime_c.running import BUILD, run_tool
from tests.runtime_c.tensorrt import for_tensorrt, lock, refused
from tests.runtime_c.test_tools import with_golden


def endless(start: str = "x", end: str = "y") -> list:
    """y = x after a loop whose condition stays true; it depends on x, so that it is not folded away."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["a"], ["b"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("a", 1, [1, 4])],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("b", 1, [1, 4])])
    return [_constant("most", np.int64(2**62)), _constant("true", np.bool_(True)),
            helper.make_node("Loop", ["most", "true", start], [end], body=body)]


def enormous() -> list:
    """y = x + the sum over 16 GB of numbers."""
    return [_constant("shape", np.array([4, 1 << 30], np.int64)),
            helper.make_node("ConstantOfShape", ["shape"], ["many"]),
            helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0), helper.make_node("Add", ["x", "sum"], ["y"])]


def _constant(name: str, value) -> object:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def bundle_of(nodes: list) -> Bundle:
    bundle = Bundle("hostile")
    bundle.source("x", "f32", (1, 4), "tick")
    bundle.value("y", "f32", (1, 4))
    bundle.stage("only", nodes, (0,), [("x", "x", "whole")], [("y", "y", "whole")])
    x = np.ones((1, 4), np.float32)
    bundle.frame("ones", {"x": x}, {"y": x})
    return bundle


def test_a_model_without_end_is_ended(lib, ort, tmp_path):
    root, began = bundle_of(endless()).write(tmp_path), time.monotonic()
    ran = run_tool("vlart-run", root, "--ort", ort, "--seconds", 2, "--self-test")
    assert ran.returncode == 1 and time.monotonic() - began < 20
    assert "the run does not end" in ran.stderr and "2 seconds" in ran.stderr and str(root) in ran.stderr


def test_a_model_that_takes_all_memory_is_refused(lib, ort, tmp_path):
    root = bundle_of(enormous()).write(tmp_path)
    before = os.times()
    ran = run_tool("vlart-run", root, "--ort", ort, "--self-test", "--json")
    said = json.loads(ran.stdout)
    assert ran.returncode == 1 and said["status"] == "BACKEND_FAILED" and "17179869184" in said["why"], said
    assert os.times().children_user - before.children_user < 10


def with_head(nodes: list, before: str) -> Bundle:
    """Four stages, the first three on TensorRT, the last with `nodes`, whose output `before` takes the place of its
    input "state"."""
    bundle = for_tensorrt(with_golden(Reactive()), {"language", "vision", "fusion"})
    model = onnx.ModelProto.FromString(bundle.files["stages/head.onnx"])
    for node in model.graph.node:
        node.input[:] = [before if name == "state" else name for name in node.input]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    bundle.files["stages/head.onnx"] = model.SerializeToString()
    return bundle


def test_engines_are_proved_in_a_child_with_limits(board, tmp_path):
    """Beside a stage on the CPU that has no end, takes all memory, or is honest."""
    many = [_constant("many_shape", np.array([4, 1 << 30], np.int64)),
            helper.make_node("ConstantOfShape", ["many_shape"], ["many"]),
            helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
            helper.make_node("Add", ["state", "sum"], ["held"])]
    honest = [helper.make_node("Identity", ["state"], ["held"])]
    for name, nodes, words in (("endless", endless("state", "held"), ("does not end", "2 seconds", "--seconds")),
                               ("enormous", many, ("17179869184",)), ("honest", honest, ())):
        path, began = with_head(nodes, "held").write(tmp_path / name), time.monotonic()
        done = board.build(path, "--seconds", 2)
        if words:
            refused(done, *words)
        assert time.monotonic() - began < 20 and done.returncode == bool(words), done.stderr
        assert lock(path)["golden"] == ("pending" if words else "passed")


def test_an_honest_model_runs_under_the_limits(lib, ort, tmp_path):
    root = bundle_of([helper.make_node("Identity", ["x"], ["y"])]).write(tmp_path)
    for more in ((), ("--seconds", 0), ("--memory", 0), ("--memory", 512), ("--repeat", 2000, "--seconds", 1)):
        ran = run_tool("vlart-run", root, "--ort", ort, "--self-test", *more)
        assert ran.returncode == 0 and "self-test passed" in ran.stdout, ran.stderr


def test_the_end_of_the_child_is_told(lib, ort, tmp_path):
    """It crashes, and it does not outlive who started it."""
    root = bundle_of(endless()).write(tmp_path)
    for who, status in (("child", 1), ("parent", -signal.SIGKILL)):
        parent = subprocess.Popen([BUILD / "vlart-run", root, "--ort", ort], stderr=subprocess.PIPE, text=True)
        child = None
        while child is None:
            time.sleep(0.05)
            listed = subprocess.run(["ps", "--ppid", str(parent.pid), "-o", "pid="], capture_output=True, text=True,
                                    check=False).stdout.split()
            child = int(listed[0]) if listed else None
        os.kill(child if who == "child" else parent.pid, signal.SIGSEGV if who == "child" else signal.SIGKILL)
        _, err = parent.communicate(timeout=20)
        assert parent.returncode == status
        assert ("signal 11" in err) == (who == "child")
        for _ in range(100):
            if not os.path.exists(f"/proc/{child}"):  # noqa: PTH110
                break
            time.sleep(0.05)
        else:
            pytest.fail("the child outlives its parent")
