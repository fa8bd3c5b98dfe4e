"""Policies with an op that TensorRT has not, from the line of Python to what is said of it: node, line, reason,
rewrite."""

from __future__ import annotations

import importlib.util
import inspect
import re

import onnx_ir as ir
import pytest

from tests.samples.rejected_policies import Filtered, Products, policy
from vlacompile.check.compile import compile_stage
from vlacompile.check.tensorrt import BundleCheck, judge
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.emit.tensorrt.build_recipe import build_of
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import EmitError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")


CASES = {Filtered: ("Conv", "(?i)int32", "floating-point"), Products: ("MatMul", "(?i)int64", "floating-point")}


@pytest.mark.parametrize("part", CASES, ids=lambda p: p.__name__)
def test_what_tensorrt_has_not_is_told_with_its_line_and_a_rewrite(part, tmp_path):
    op, why, fix = CASES[part]
    (found,) = stage(capture(policy(part), whole=True), load_target("orin-nano-8gb"), load_recipe(None)).staged.stages
    emitted = emit_onnx(found, "tensorrt")
    ir.save(emitted.model, tmp_path / "m.onnx")
    checked = judge(found.name, build_of(found, emitted), emitted.model, compile_stage(tmp_path / "m.onnx"))
    with pytest.raises(EmitError, match=f'rejects the stage "{found.name}"') as caught:
        BundleCheck("b.vlab", "p", "t", "r", (checked,)).require()
    lines, first = inspect.getsourcelines(part.forward)
    node = re.search(r'node "([^"]+)"', caught.value.where).group(1)
    assert {n.name: n.op_type for n in emitted.model.graph}[node] == op
    line = first + len(lines) - 1  # the last one has the op
    assert f"samples/rejected_policies.py:{line}: {lines[-1].strip()}" in caught.value.where
    assert re.search(why, caught.value.why) and fix in caught.value.fix
