"""What is rewritten for TensorRT so that it fuses, and what is planned to be fused: the same numbers, and counts that
NVIDIA's compiler confirms where it is installed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.samples import policies
from tests.samples.small_onnx import weight, write
from vlacompile.check.compile import compile_stage
from vlacompile.check.tensorrt import judge
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.for_tensorrt import count_in_numbers, flat_rows, several_blocks
from vlacompile.compiler.emit.onnx.fused_attention import fused_attentions
from vlacompile.compiler.emit.onnx.merge_attentions import join_attentions
from vlacompile.compiler.emit.tensorrt.build_recipe import ENGINE_BYTES, code_bytes, int4_products
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import LoopRecipe, load_recipe
from vlart.bundle.plan.plan import Build

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None,
                                    reason="tensorrt_rtx is not installed: pip install 'vlacompile[rtx]'")
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
ANY = Build(("strongly_typed",), 3, 0, 1 << 29, 0, 0, 1 << 40, 1 << 40)


def in_four_bits(path, block: int, *, heads: bool = True, rows: int = 16, features: int = 64, kind=HALF):
    """Heads of an attention put beside each other, times a 4-bit weight [features,96]."""
    q = np.random.default_rng(0).integers(-7, 8, (features, 96)).astype(ml_dtypes.int4)
    scale = (np.random.default_rng(1).random((features // block, 96)) / 64)
    scale = scale.astype(np.float16 if kind == HALF else np.float32)
    moved = [helper.make_node("MatMul", ["x", "v"], ["o"], name="heads"),
             helper.make_node("Transpose", ["o"], ["t"], perm=[0, 2, 1, 3], name="beside"),
             helper.make_node("Reshape", ["t", "shape"], ["flat"], name="flat")] if heads else []
    nodes = [*moved, helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=block, name="dq"),
             helper.make_node("MatMul", ["flat" if heads else "x", "w"], ["y"], name="product")]
    shape = onnx.numpy_helper.from_array(np.array([1, rows, features], np.int64), "shape")
    tensors = [ir.to_proto(ir.tensor(q, name="q")), onnx.numpy_helper.from_array(scale, "s")]
    tensors += [shape, weight("v", 1, 4, features // 4, features // 4, dtype=scale.dtype)] if heads else []
    x = [1, 4, rows, features // 4] if heads else [1, rows, features]
    found = ir.load(write(path, nodes, [("x", kind, x)], [("y", kind, [1, rows, 96])], tensors))
    for name, dims in (("t", [1, rows, 4, features // 4]), ("flat", [1, rows, features]), ("w", [features, 96])):
        for value in (v for n in found.graph for v in n.outputs if v.name == name):
            value.shape, value.dtype = ir.Shape(dims), ir.DataType(kind)
    return found


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()  # as written: it would round x to 8 bits for a product of its own
    options.graph_optimization_level, options.log_severity_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def compiled(model: ir.Model, path):
    ir.save(model, path)
    return judge("s", ANY, model, compile_stage(path))


def rewritten_is_equal(model: ir.Model, rewrite, shape) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    before = run(model, x)
    rewrite(model)
    np.testing.assert_allclose(run(model, x), before, rtol=1e-6, atol=1e-6)
    assert np.abs(before).max() > 1e-2


# rewrites

def test_a_product_in_four_bits_reads_a_matrix(tmp_path):
    model = in_four_bits(tmp_path / "m.onnx", 32, kind=SINGLE)
    rewritten_is_equal(model, flat_rows, (1, 4, 16, 16))
    assert [n.op_type for n in model.graph] == ["MatMul", "Transpose", "Reshape", "DequantizeLinear",
                                                "Reshape", "MatMul",
                                               "Reshape"]
    assert next(n for n in model.graph if n.name == "product").inputs[0].shape == (16, 64)
    assert [v.name for v in model.graph.outputs] == ["y"] and model.graph.outputs[0].shape == (1, 16, 96)
    flat_rows(model)  # it is one now
    assert len(list(model.graph)) == 7


def test_rows_that_several_products_read_are_reshaped_once(tmp_path):
    model = in_four_bits(tmp_path / "m.onnx", 32, heads=False, kind=SINGLE)
    first = next(n for n in model.graph if n.op_type == "MatMul")
    second = ir.node("MatMul", list(first.inputs), name="other")
    second.outputs[0].name, second.outputs[0].shape, second.outputs[0].dtype = (
        "z", first.outputs[0].shape, first.outputs[0].dtype)
    model.graph.append(second)
    model.graph.outputs.append(second.outputs[0])
    rewritten_is_equal(model, flat_rows, (1, 16, 64))
    assert [n.op_type for n in model.graph] == ["DequantizeLinear", "Reshape", "MatMul", "Reshape", "MatMul", "Reshape"]
    assert [v.name for v in model.graph.outputs] == ["y", "z"]


def test_one_block_becomes_two_of_the_same_numbers(tmp_path):
    model = in_four_bits(tmp_path / "m.onnx", 64, kind=SINGLE)
    assert not int4_products(model)
    rewritten_is_equal(model, several_blocks, (1, 4, 16, 16))
    node = next(n for n in model.graph if n.op_type == "DequantizeLinear")
    assert node.attributes.get_int("block_size") == 32 and node.inputs[1].shape == (2, 96)
    assert len(int4_products(model)) == 1
    several_blocks(model)
    assert node.attributes.get_int("block_size") == 32


@needs_compiler
@pytest.mark.parametrize("block", [16, 32, 64])
def test_four_bits_are_fused_behind_an_attention(tmp_path, block):
    """64 of 64 features: one block, halved first."""
    model = in_four_bits(tmp_path / "m.onnx", block)
    several_blocks(model)
    flat_rows(model)
    found = compiled(model, tmp_path / "r.onnx")
    four = next(c for c in found.counts if c.what == "fused INT4")
    assert found.refusal is None and (four.found, four.missing) == (1, ()), found


@needs_compiler
def test_without_the_rewrite_they_are_not(tmp_path):
    """The reason for it, and a negative control of the count; a later compiler may do better."""
    model = in_four_bits(tmp_path / "m.onnx", 32)
    found = compiled(model, tmp_path / "r.onnx")
    version = found.compiler.rpartition(" ")[2]
    if not version.startswith("1.7.1"):
        pytest.skip(f"known of 1.7.1, this is {version}")
    four = judge("s", replace(ANY, int4_dequants=1), model, compile_stage(tmp_path / "r.onnx")).counts[1]
    assert four.missing == ("product",) and not four.good


# attentions

def attention(path, heads, queries, keys, width, kind=HALF, softmax=None, written: bool = False,
              constant: str = "") -> ir.Model:
    """softmax: the type that it is computed in. written: scaled and masked. constant: q, k or v is a weight."""
    wide = softmax is not None and softmax != kind
    nodes = [helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
             helper.make_node("MatMul", ["q", "kt"], ["s"], name="qk")]
    last = "s"
    if written:
        nodes += [helper.make_node("Mul", ["s", "scale"], ["scaled"]),
                  helper.make_node("Add", ["scaled", "mask"], ["masked"])]
        last = "masked"
    if wide:
        nodes.append(helper.make_node("Cast", [last], ["wide"], to=softmax))
    nodes.append(helper.make_node("Softmax", ["wide" if wide else last], ["p"], axis=-1))
    if wide:
        nodes.append(helper.make_node("Cast", ["p"], ["narrow"], to=kind))
    nodes.append(helper.make_node("MatMul", ["narrow" if wide else "p", "v"], ["y"], name="pv"))
    inputs = [("q", kind, [1, heads, queries, width]), ("k", kind, [1, heads, keys, width]),
              ("v", kind, [1, heads, keys, width])]
    inputs += [("mask", kind, [1, 1, 1, keys])] if written else []
    dtype = np.float16 if kind == HALF else np.float32
    weights = [weight("scale", 1, dtype=dtype)] if written else []
    weights += [weight(n, *shape, dtype=dtype) for n, _, shape in inputs if n == constant]
    write(path, nodes, [i for i in inputs if i[0] != constant], [("y", kind, [1, heads, queries, width])], weights)
    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    path.write_bytes(proto.SerializeToString())
    return ir.load(path)


CASES = {"several heads": ((4, 16, 16, 16), {}, 1), "one query": ((4, 1, 16, 16), {}, 1),
         "two keys": ((4, 2, 2, 16), {}, 1),
         "narrow": ((4, 16, 16, 9), {}, 1), "wide": ((4, 16, 16, 256), {}, 1),
         "masked": ((4, 16, 16, 32), {"written": True}, 1),
         "softmax in f32": ((4, 16, 16, 32), {"softmax": SINGLE}, 1),
         "one head": ((1, 16, 16, 16), {}, 0), "one key": ((4, 16, 1, 16), {}, 0),
         "too narrow": ((4, 16, 16, 8), {}, 0),
         "too wide": ((4, 16, 16, 512), {}, 0), "in f32": ((4, 16, 16, 16), {"kind": SINGLE}, 0),
         "constant queries": ((4, 32, 158, 16), {"constant": "q"}, 1),
         "constant keys": ((4, 32, 158, 16), {"constant": "k"}, 1),
         "constant values": ((4, 32, 158, 16), {"constant": "v"}, 1)}


@pytest.mark.parametrize("case", CASES)
def test_attentions_are_planned_by_what_the_graph_has(tmp_path, case):
    shape, settings, planned = CASES[case]
    assert len(fused_attentions(attention(tmp_path / "m.onnx", *shape, **settings))) == planned


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_the_compiler_fuses_those_and_no_other(tmp_path, case):
    shape, settings, planned = CASES[case]
    attention(tmp_path / "m.onnx", *shape, **settings)
    found = compile_stage(tmp_path / "m.onnx")
    assert found.compiled is not None and sum(k.attention for k in found.compiled.kernels) == planned


def asked_twice(path, constant: bool, rows=(32, 16, 32), masked_by: str = "mask") -> ir.Model:
    """Queries, constant or not, over the same keys [1,4,16,158] and values, under a mask; each result is scaled."""
    nodes, inputs, weights = [], [("k", HALF, [1, 4, 16, 158]), ("v", HALF, [1, 4, 158, 16]),
                                  ("mask", HALF, [1, 1, 1, 158]),
                                  ("own", HALF, [1, 1, 16, 158])], [weight("scale", 1)]
    for i, n in enumerate(rows):
        nodes += [helper.make_node("MatMul", ["q" * (i + 1), "k"], [f"s{i}"], name=f"qk{i}"),
                  helper.make_node("Add", [f"s{i}", masked_by], [f"m{i}"], name=f"mask{i}"),
                  helper.make_node("Softmax", [f"m{i}"], [f"p{i}"], axis=-1, name=f"softmax{i}"),
                  helper.make_node("MatMul", [f"p{i}", "v"], [f"o{i}"], name=f"pv{i}"),
                  helper.make_node("Mul", [f"o{i}", "scale"], [f"y{i}"], name=f"scaled{i}")]
        weights += [weight("q" * (i + 1), 1, 4, n, 16)] if constant else []
        inputs += [] if constant else [("q" * (i + 1), HALF, [1, 4, n, 16])]
    write(path, nodes, inputs, [(f"y{i}", HALF, [1, 4, n, 16]) for i, n in enumerate(rows)], weights)
    path.write_bytes(onnx.shape_inference.infer_shapes(onnx.load(path)).SerializeToString())
    return ir.load(path)


def answers(model: ir.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    given = {v.name: rng.standard_normal(tuple(v.shape)).astype(np.float16) for v in model.graph.inputs}
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(),
                                        providers=["CPUExecutionProvider"]).run(None, given)


def test_constant_queries_over_the_same_keys_become_one_attention(tmp_path):
    model = asked_twice(tmp_path / "m.onnx", constant=True)
    assert not fused_attentions(model)
    before = answers(model)
    join_attentions(model)
    assert [n.op_type for n in model.graph] == ["MatMul", "Add", "Softmax", "MatMul", "Split", "Mul", "Mul", "Mul"]
    assert len(fused_attentions(model)) == 1
    for a, b in zip(before, answers(model), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
        assert np.abs(a).max() > 1e-3


@pytest.mark.parametrize("settings", [{"constant": False}, {"constant": True, "rows": (16, 16), "masked_by": "own"}])
def test_others_stay_as_they_are(tmp_path, settings):
    """Queries that are computed are fused as they are; a mask of its own for every query is not the same one twice."""
    model = asked_twice(tmp_path / "m.onnx", **settings)
    join_attentions(model)
    assert sum(n.op_type == "Softmax" for n in model.graph) == len(settings.get("rows", (32, 16, 32)))


@needs_compiler
@pytest.mark.parametrize(("constant", "join", "fused"), [(True, False, 0), (True, True, 1), (False, True, 3)])
def test_the_compiler_fuses_one_of_all_queries_and_not_several(tmp_path, constant, join, fused):
    model = asked_twice(tmp_path / "m.onnx", constant)
    if join:
        join_attentions(model)
    ir.save(model, tmp_path / "r.onnx")
    found = compile_stage(tmp_path / "r.onnx")
    assert sum(k.attention for k in found.compiled.kernels) == fused == len(fused_attentions(model))


# the size of a plan, and the form of a loop

def test_an_unrolled_loop_may_have_a_larger_plan_and_so_may_quantised_activations(tmp_path):
    def products(count: int, op: str = "MatMul", second: str = "w") -> ir.Model:
        nodes = [helper.make_node(op, [f"x{i}", second], [f"x{i + 1}"]) for i in range(count)]
        return ir.load(write(tmp_path / "m.onnx", nodes, [("x0", HALF, [8, 8])], [(f"x{count}", HALF, [8, 8])],
                             [weight("w", 8, 8), weight("s", 1)]))

    assert [code_bytes(products(n)) / ENGINE_BYTES for n in (1, 125, 250, 500)] == [1, 1, 2, 4]
    assert code_bytes(products(250, "QuantizeLinear", "s")) == 2 * ENGINE_BYTES
    model = products(250, "QuantizeLinear", "s")
    for node in model.graph:
        node.replace_input_with(0, model.graph.initializers["w"])
    assert code_bytes(model) == ENGINE_BYTES  # a weight is quantised when the engine is built


@pytest.mark.parametrize("precision, form, fused", [
    (PrecisionRecipe(layers="int4"), "auto", False), (PrecisionRecipe(layers="auto"), "auto", False),
    (PrecisionRecipe(layers="fp16", rule=(PrecisionRule("*", "int4"),)), "auto", False),
    (PrecisionRecipe(base="fp16", layers="fp16"), "auto", True),
    (PrecisionRecipe(layers="auto", schemes=("int8",)), "auto", True),
    (PrecisionRecipe(layers="int4"), "fused", True)])
def test_four_bits_run_step_by_step_on_a_board(precision, form, fused):
    def runs(target: str) -> bool:
        recipe = replace(load_recipe(None), precision=precision, loop=LoopRecipe(form=form))
        staged = stage(capture(policies.flow(), whole=True), load_target(target), recipe).staged
        return all(s.iterations == 1 for s in staged.stages)

    assert runs("orin-nano-8gb") == fused


def running_sum(path, kind, length: int = 6, ends: bool = True) -> ir.Model:
    """Of a mask, or of integers that are given; its result is the output itself, or half of it."""
    nodes = [helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64, name="cast"),
             helper.make_node("Concat", ["n", "one"], ["more"], axis=1, name="more"),
             helper.make_node("CumSum", ["more", "axis"], ["y" if ends else "sum"], name="sums")]
    nodes += [] if ends else [helper.make_node("Add", ["sum", "one"], ["y"], name="add")]
    tensors = [onnx.numpy_helper.from_array(np.array([[1]]), "one"), onnx.numpy_helper.from_array(np.array(1), "axis")]
    model = ir.load(write(path, nodes, [("x", kind, [1, length])],
                          [("y", TensorProto.INT64, [1, length + 1])], tensors))
    for value in (v for n in model.graph for v in n.outputs if v.name in ("n", "more", "sum")):
        value.dtype, value.shape = ir.DataType.INT64, ir.Shape([1, length + (value.name != "n")])
    return model


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_counted_is_summed_in_floating_point(tmp_path, ends):
    model, x = running_sum(tmp_path / "m.onnx", TensorProto.BOOL,
                           ends=ends), np.array([[True, False, True, True, False, True]])
    want = run(model, x)
    count_in_numbers(model)
    found = {n.name: n for n in model.graph}["sums"]
    assert found.inputs[0].dtype == found.outputs[0].dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(run(model, x), want)
    assert [o.name for o in model.graph.outputs] == ["y"] and model.graph.outputs[0].dtype == ir.DataType.INT64
    before = [n.name for n in model.graph]
    count_in_numbers(model)
    assert [n.name for n in model.graph] == before


@pytest.mark.parametrize("kind, length", [(TensorProto.INT64, 6), (TensorProto.BOOL, 1 << 24)])
def test_sums_that_floating_point_may_not_hold_stay(tmp_path, kind, length):
    model = running_sum(tmp_path / "m.onnx", kind, length)
    count_in_numbers(model)
    assert {n.name: n for n in model.graph}["sums"].inputs[0].dtype == ir.DataType.INT64
