"""The same numbers, or nearer ones; fused attentions and quantised weights stay; and what NVIDIA's compiler makes of
it, where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.samples.small_onnx import weight, write
from vlacompile.check.compile import compile_stage
from vlacompile.compiler.emit.onnx.fused_attention import fused_attentions
from vlacompile.compiler.emit.onnx.sum_in_fp32 import LONG, sum_in_fp32

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def loaded(path, nodes, inputs, outputs, tensors=()) -> ir.Model:
    """With the shape and type of every value."""
    write(path, nodes, inputs, outputs, tensors)
    path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load(path)).SerializeToString())
    return ir.load(path)


def product(path, op: str = "MatMul", kind=HALF, rows: int = 4, terms: int = 32, columns: int = 8) -> ir.Model:
    dtype = np.float16 if kind == HALF else np.float32
    inputs = ["x", "w", "b"] if op == "Gemm" else ["x", "w"]
    return loaded(path, [helper.make_node(op, inputs, ["y"], name="product")], [("x", kind, [rows, terms])],
                  [("y", kind, [rows, columns])],
                  [weight("w", terms, columns, dtype=dtype), weight("b", columns, dtype=dtype)][:len(inputs) - 1])


def attention(path, heads: int) -> ir.Model:
    """Of one head it is not fused."""
    nodes = [helper.make_node("MatMul", ["q", "k"], ["s"], name="qk"),
             helper.make_node("Softmax", ["s"], ["p"], axis=-1, name="softmax"),
             helper.make_node("MatMul", ["p", "v"], ["y"], name="pv")]
    ports = {"q": [1, heads, 16, 32], "k": [1, heads, 32, 24], "v": [1, heads, 24, 32]}
    return loaded(path, nodes, [(n, HALF, s) for n, s in ports.items()], [("y", HALF, [1, heads, 16, 32])])


def ran(model: ir.Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


@pytest.mark.parametrize("op, casts", [("MatMul", 2), ("Gemm", 3)])
def test_a_product_reads_and_gives_fp16_and_sums_in_f32(tmp_path, op, casts):
    model = product(tmp_path / "m.onnx", op)
    fired, = sum_in_fp32(model, "all")
    assert (fired.rule, fired.count) == ("tensorrt.fp32_sums", 1)
    assert ops(model) == ["Cast"] * casts + [op, "Cast"]
    node = next(n for n in model.graph if n.name == "product")
    assert {v.dtype for v in (*node.inputs, *node.outputs)} == {ir.DataType.FLOAT}
    assert [(v.name, v.dtype) for v in model.graph.outputs] == [("y", ir.DataType.FLOAT16)]
    assert all(v.dtype == ir.DataType.FLOAT16 for v in model.graph.initializers.values())
    assert not sum_in_fp32(model, "all")  # they are in f32 now


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), rows=st.integers(1, 5), terms=st.integers(1, 300), columns=st.integers(1, 5))
def test_it_is_the_nearest_fp16_number_to_the_exact_sum(tmp_path_factory, seed, rows, terms, columns):
    """Up to the rounding of f32 sums; a sum in fp16 (the negative control) is not."""
    model = product(tmp_path_factory.mktemp("m") / "m.onnx", rows=rows, terms=terms, columns=columns)
    w = model.graph.initializers["w"].const_value.numpy().astype(np.float64)
    x = (np.random.default_rng(seed).random((rows, terms)) + 0.5).astype(np.float16)
    sum_in_fp32(model, "all")
    exact = x.astype(np.float64) @ w
    near = np.abs(x.astype(np.float64)) @ np.abs(w) * terms * 2.0 ** -24
    assert (np.abs(ran(model, x) - exact) <= np.spacing(np.abs(exact).astype(np.float16)) / 2 + near).all()


def test_sums_in_fp16_are_not_as_near():
    rng = np.random.default_rng(0)
    x, w = ((rng.random(4096) + 0.5).astype(np.float16) for _ in range(2))
    exact, total = float(x.astype(np.float64) @ w.astype(np.float64)), np.float16(0)
    for a, b in zip(x, w, strict=True):
        total = np.float16(total + a * b)
    assert abs(float(total) - exact) > 10 * float(np.spacing(np.float16(exact)))


def test_products_that_share_an_operand_share_its_cast(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"y{i}"], name=f"p{i}") for i in range(3)]
    model = loaded(tmp_path / "m.onnx", nodes, [("x", HALF, [4, 8])], [(f"y{i}", HALF, [4, 6]) for i in range(3)],
                   [weight("w", 8, 6)])
    assert sum_in_fp32(model, "all")[0].count == 3
    assert ops(model).count("Cast") == 2 + 3


@pytest.mark.parametrize("heads, fired", [(4, 0), (1, 2)])
def test_a_fused_attention_stays_and_another_does_not(tmp_path, heads, fired):
    model = attention(tmp_path / "m.onnx", heads)
    before = len(fused_attentions(model))
    assert sum(f.count for f in sum_in_fp32(model, "all")) == fired
    assert len(fused_attentions(model)) == before == (heads > 1)


def test_a_weight_in_fewer_bits_and_products_in_f32_stay(tmp_path):
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0),
             helper.make_node("MatMul", ["x", "w"], ["y"])]
    quantised = loaded(tmp_path / "q.onnx", nodes, [("x", HALF, [4, 8])], [("y", HALF, [4, 6])],
                       [weight("q", 8, 6, dtype=np.int8), weight("s", 8)])
    for model in (quantised, product(tmp_path / "m.onnx", kind=SINGLE)):
        before = ops(model)
        assert not sum_in_fp32(model, "all") and ops(model) == before


@pytest.mark.parametrize("rows, terms, which, fires", [
    (1, LONG, "long", True), (1, LONG - 1, "long", False), (64, LONG, "long", False), (1, LONG, "none", False),
    (1, 32, "all", True)])
def test_the_recipe_says_which(tmp_path, rows, terms, which, fires):
    assert bool(sum_in_fp32(product(tmp_path / "m.onnx", rows=rows, terms=terms), which)) == fires


@needs_compiler
@pytest.mark.parametrize("rows", [1, 64])
def test_the_compiler_makes_one_kernel_with_weights_in_fp16(tmp_path, rows):
    found = {}
    for which in ("none", "all"):
        model = product(tmp_path / "m.onnx", rows=rows, terms=1024, columns=2048)
        sum_in_fp32(model, which)
        ir.save(model, tmp_path / "r.onnx")
        found[which] = compile_stage(tmp_path / "r.onnx").compiled
    plain, summed = found["none"], found["all"]
    assert summed.weight_bytes == plain.weight_bytes and len(summed.kernels) == len(plain.kernels) == 1
    assert {*summed.kernels[0].inputs, *summed.kernels[0].outputs} == {"Half"}
    assert summed.kernels[0].constants == plain.kernels[0].constants
