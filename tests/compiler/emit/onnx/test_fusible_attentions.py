"""The same numbers in a form that is fused; and that NVIDIA's compiler fuses it, where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.samples.small_onnx import scalar, write
from vlacompile.check.compile import compile_stage
from vlacompile.compiler.emit.onnx.attention_list import attention_list
from vlacompile.compiler.emit.onnx.fused_attention import fused_attentions
from vlacompile.compiler.emit.onnx.fusible_attentions import fusible_attentions

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
HALF = TensorProto.FLOAT16


def attention(path, heads: int, queries: int, keys: int, width: int, values: int | None = None, *, kind=HALF,
              mask: tuple[int, ...] | None = None) -> ir.Model:
    """Scaled, and masked where a mask has a shape."""
    nodes = [helper.make_node("MatMul", ["q", "k"], ["s"], name="qk"),
             helper.make_node("Mul", ["s", "scale"], ["m0"], name="scaled")]
    nodes += [helper.make_node("Add", ["m0", "mask"], ["m1"], name="masked")] if mask else []
    nodes += [helper.make_node("Softmax", ["m1" if mask else "m0"], ["p"], axis=-1, name="softmax"),
              helper.make_node("MatMul", ["p", "v"], ["y"], name="pv")]
    values = width if values is None else values
    inputs = [("q", kind, [1, heads, queries, width]), ("k", kind, [1, heads, width, keys]),
              ("v", kind, [1, heads, keys, values])] + ([("mask", kind, list(mask))] if mask else [])
    write(path, nodes, inputs, [("y", kind, [1, heads, queries, values])],
          [scalar("scale", 0.25, np.float16 if kind == HALF else np.float32)])
    path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load(path)).SerializeToString())
    return ir.load(path)


def answer(model: ir.Model) -> np.ndarray:
    rng = np.random.default_rng(0)
    kinds = {ir.DataType.FLOAT16: np.float16, ir.DataType.FLOAT: np.float32}
    given = {v.name: rng.standard_normal(tuple(v.shape)).astype(kinds[v.dtype]) for v in model.graph.inputs}
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(),
                                        providers=["CPUExecutionProvider"]).run(None, given)[0]


FUSIBLE = {"narrow": ((4, 64, 64, 8), {}), "narrow, masked by query": ((4, 64, 96, 4), {"mask": (1, 1, 64, 96)}),
           "narrow values": ((2, 64, 96, 16, 8), {}), "narrow queries": ((2, 96, 96, 4, 16), {}),
           "one head": ((1, 128, 96, 16), {}), "one head, masked by key": ((1, 128, 96, 16), {"mask": (1, 1, 1, 96)})}


@pytest.mark.parametrize("case", FUSIBLE)
def test_the_numbers_stay_and_it_is_fused(tmp_path, case):
    shape, settings = FUSIBLE[case]
    model = attention(tmp_path / "m.onnx", *shape, **settings)
    assert not fused_attentions(model)
    want = answer(model)
    fired, = fusible_attentions(model)
    assert (fired.rule, fired.count) == ("tensorrt.fusible_attentions", 1) and fired.bytes > 0
    assert len(fused_attentions(model)) == 1 and [v.name for v in model.graph.outputs] == ["y"]
    np.testing.assert_allclose(answer(model), want, rtol=2e-3, atol=2e-3)
    assert not fusible_attentions(model)


@pytest.mark.parametrize("shape, settings", [
    ((4, 64, 64, 16), {}), ((4, 8, 8, 8), {}), ((1, 127, 96, 16), {}), ((1, 128, 96, 16), {"mask": (1, 1, 128, 96)}),
    ((4, 64, 64, 8), {"kind": TensorProto.FLOAT}), ((1, 128, 96, 8), {}), ((4, 64, 64, 512), {})])
def test_others_stay(tmp_path, shape, settings):
    """Fused already; logits of few bytes; an odd number of queries; a mask that differs between queries; f32; two
    reasons at once; too wide."""
    model = attention(tmp_path / "m.onnx", *shape, **settings)
    before = [n.op_type for n in model.graph]
    assert not fusible_attentions(model) and [n.op_type for n in model.graph] == before


@needs_compiler
@pytest.mark.parametrize("case", FUSIBLE)
def test_the_compiler_fuses_it(tmp_path, case):
    shape, settings = FUSIBLE[case]
    fused = []
    for rewrite in (False, True):
        model = attention(tmp_path / "m.onnx", *shape, **settings)
        if rewrite:
            fusible_attentions(model)
        ir.save(model, tmp_path / "r.onnx")
        fused.append(sum(k.attention for k in compile_stage(tmp_path / "r.onnx").compiled.kernels))
    assert fused == [0, 1]


@pytest.mark.parametrize("shape, settings, why, doubts", [
    ((4, 256, 256, 64), {}, (), ()), ((4, 256, 64, 64), {}, (), ("short",)), ((4, 64, 64, 256), {}, (), ()),
    ((1, 64, 64, 8), {}, ("head too narrow", "one head"), ()),
    ((4, 64, 64, 16), {"kind": TensorProto.FLOAT}, ("not in fp16",), ())])
def test_the_list_says_what_is_not_fused_and_why(tmp_path, shape, settings, why, doubts):
    found, = attention_list(attention(tmp_path / "m.onnx", *shape, **settings))
    assert (found.heads, found.queries, found.keys, found.width) == shape
    assert (found.obstacles, found.doubts) == (why, doubts)
    assert found.logits_bytes == shape[0] * shape[1] * shape[2] * (4 if settings else 2)
