"""Quantised ops: their eager kernels against ONNX Runtime's, to the last bit where both add integers; and the graphs
that are written for each engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.fx import Graph

from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.graph.program import infer_val
from vlacompile.compiler.precision.quantise.insert_quantised_ops import insert_quantised_ops, step_of, values_to_range
from vlacompile.compiler.precision.quantise.layers import QuantisedLayer, layers_of
from vlacompile.compiler.precision.quantise.ops import OPS, pack_int4, unpack_int4
from vlacompile.compiler.precision.quantise.quantise import round_rows, row_scales
from vlacompile.compiler.staging.run_stages import stage_module
from vlacompile.compiler.staging.stages import Port, StageGraph

_ATEN = torch.ops.aten


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def graph_of(build, x: torch.Tensor, constants: dict[str, torch.Tensor]) -> StageGraph:
    """build(call, x, {name: node}) -> the output node, of a stage with one input and one output."""
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty_like(x, device="meta")
    held = {name: graph.get_attr(name) for name in constants}
    for name, n in held.items():
        n.meta["val"] = torch.empty_like(constants[name], device="meta")

    def call(target, *args):
        made = graph.call_function(target, args)
        made.meta["val"] = infer_val(made)
        return made

    graph.output((build(call, node, held),))
    return StageGraph("stage", ("x",), graph, constants, (Port("x", "x"),), (Port("y", "y"),))


def session(stage: StageGraph, dialect: str = "onnxruntime") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
    if dialect == "tensorrt":  # as it is written; ONNX Runtime would make its own ops of it
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = ir.to_proto(emit_onnx(stage, dialect).model)
    if dialect == "onnxruntime":
        onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def both(stage: StageGraph, x: torch.Tensor, dialect: str = "onnxruntime") -> tuple[np.ndarray, np.ndarray]:
    """(the eager kernels, ONNX Runtime)"""
    with torch.no_grad():
        eager = stage_module(stage)(x)[0].numpy()
    return eager, session(stage, dialect).run(None, {"x": x.numpy()})[0]


def linear_stage(k: int, n: int, rows: int, bias: bool = True, seed: int = 1) -> tuple[StageGraph, torch.Tensor]:
    x = draw(1, rows, k, seed=seed)
    constants = {"net__w": draw(n, k, seed=seed + 1) * 0.05} | ({"net__b": draw(n, seed=seed + 2)} if bias else {})
    stage = graph_of(lambda call, v, c: call(_ATEN.linear.default, v, *c.values()), x, constants)
    return stage, x


def rounded(stage: StageGraph, scheme: str, block: int = 32, low: float = -4.0,
            high: float = 4.0) -> dict[str, QuantisedLayer]:
    found = {}
    for layer in layers_of(stage):
        w = stage.constants[layer.weight]
        if scheme == "int8":
            scale = row_scales(w)
            found[layer.node] = QuantisedLayer("int8", round_rows(w, scale), scale, low=low, high=high)
        else:
            short = -w.shape[1] % block
            blocks = torch.nn.functional.pad(w, (0, short)).unflatten(1, (-1, block))
            scale = blocks.abs().amax(2).clamp(min=1e-9) / 7
            q = (blocks / scale[..., None]).round().flatten(1)[:, : w.shape[1]].to(torch.int8)
            found[layer.node] = QuantisedLayer("int4", q, scale, block)
    return found


@pytest.mark.parametrize(("k", "n", "rows", "bias"), [(384, 200, 50, True), (100, 33, 1, False), (17, 5, 3, True)])
def test_a_linear_in_int8_is_the_engines(k, n, rows, bias):
    stage, x = linear_stage(k, n, rows, bias)
    lowered = insert_quantised_ops(stage, rounded(stage, "int8"), "onnxruntime")
    eager, engine = both(lowered, x)
    assert np.array_equal(eager, engine)
    full = stage_module(stage)(x)[0].numpy()
    assert 1e-4 < np.linalg.norm(eager - full) / np.linalg.norm(full) < 0.05


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize(("k", "rows"), [(384, 50), (384, 1), (160, 7)])
def test_a_linear_in_int4_is_the_engines(k, rows, block):
    stage, x = linear_stage(k, 72, rows)
    eager, engine = both(insert_quantised_ops(stage, rounded(stage, "int4", block), "onnxruntime"), x)
    assert np.abs(eager - engine).max() < 2e-5 * np.abs(eager).max()  # f32 sums of blocks, in another order
    wrong = rounded(stage, "int4", block)
    wrong = {n: replace(q, scale=q.scale.flip(0)) for n, q in wrong.items()}
    other, _ = both(insert_quantised_ops(stage, wrong, "onnxruntime"), x)
    assert np.abs(other - engine).max() > 1e-2 * np.abs(eager).max()


def conv_stage(pads: list[int], groups: int, clip: bool, seed: int = 3) -> tuple[StageGraph, torch.Tensor]:
    """conv -> relu6 -> conv, plus what came in, padded as TensorFlow does."""
    x = draw(1, 8, 17, 17, seed=seed)
    constants = {"a__w": draw(16, 8, 3, 3, seed=seed + 1) * 0.2, "a__b": draw(16, seed=seed + 2),
                 "b__w": draw(8, 16 // groups, 1, 1, seed=seed + 3) * 0.3, "c__w": draw(8, 8, 1, 1, seed=seed + 4)}

    def build(call, v, c):
        first = call(_ATEN.conv2d.default, v, c["c__w"], None)
        y = call(_ATEN.conv2d.default, call(_ATEN.pad.default, first, pads, "constant", 0.0), c["a__w"], c["a__b"])
        y = call(_ATEN.hardtanh.default, y, 0.0, 6.0) if clip else y
        y = call(_ATEN.conv2d.default, y, c["b__w"], None, [1, 1], [0, 0], [1, 1], groups)
        return call(_ATEN.relu.default, call(_ATEN.add.Tensor, y, first))

    return graph_of(build, x, constants), x


def ranges_for(stage: StageGraph, x: torch.Tensor, layers) -> dict[str, tuple[float, float]]:
    wanted, found = values_to_range(stage, frozenset(layers)), {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.name in wanted:
                found[n.name] = float(result.min()), float(result.max())
            return result

    Watch(stage_module(stage)).run(x)
    assert set(found) == set(wanted)
    return found


@pytest.mark.parametrize(("pads", "groups", "clip"), [([0, 2, 0, 2], 1, True), ([1, 1, 1, 1], 8, False)])
def test_convolutions_in_int8_are_the_engines(pads, groups, clip):
    stage, x = conv_stage(pads, groups, clip)
    layers = rounded(stage, "int8", low=float(x.min()), high=float(x.max()))
    lowered = insert_quantised_ops(stage, layers, "onnxruntime", ranges_for(stage, x, layers))
    kinds = [n.target for n in lowered.graph.nodes if n.op == "call_function"]
    assert kinds.count(OPS.conv_int8.default) == 3
    eager, engine = both(lowered, x)
    assert np.array_equal(eager, engine)
    full = stage_module(stage)(x)[0].numpy()
    assert 1e-4 < np.linalg.norm(eager - full) / np.linalg.norm(full) < 0.05


def test_a_dropped_zero_point_shows():
    stage, x = conv_stage([1, 1, 1, 1], 1, False)
    layers = rounded(stage, "int8", low=float(x.min()), high=float(x.max()))
    ranges = ranges_for(stage, x, layers)
    right, _ = both(insert_quantised_ops(stage, layers, "onnxruntime", ranges), x)
    dropped = {n: (0.0, high) for n, (_, high) in ranges.items()}
    wrong, _ = both(insert_quantised_ops(stage, layers, "onnxruntime", dropped), x)
    assert np.linalg.norm(right - wrong) > 0.1 * np.linalg.norm(right)


def test_a_bias_that_32_bits_do_not_hold_makes_the_steps_larger():
    """A dead channel: weights of nothing beside a bias."""
    stage, x = conv_stage([1, 1, 1, 1], 1, True)
    stage.constants["a__w"][3] *= 1e-9
    layers = rounded(stage, "int8", low=float(x.min()), high=float(x.max()))
    lowered = insert_quantised_ops(stage, layers, "onnxruntime", ranges_for(stage, x, layers))
    assert int(lowered.constants["a__w__bias_int32"].abs().max()) <= 2**30
    eager, engine = both(lowered, x)
    assert np.array_equal(eager, engine)


def test_the_engine_runs_in_integers(tmp_path):
    """What ONNX Runtime makes of the graph: quantised kernels, no convolution or product in f32."""
    stage, x = conv_stage([0, 2, 0, 2], 1, True)
    layers = rounded(stage, "int8", low=float(x.min()), high=float(x.max()))
    conv = insert_quantised_ops(stage, layers, "onnxruntime", ranges_for(stage, x, layers))
    linear, _ = linear_stage(64, 32, 4)
    kernels = _kernels(conv, tmp_path)
    assert "QLinearConv" in kernels and not kernels & {"Conv", "FusedConv"}, kernels
    for scheme, kernel in (("int8", "DynamicQuantizeMatMul"), ("int4", "MatMulNBits")):
        quantised = insert_quantised_ops(linear, rounded(linear, scheme), "onnxruntime")
        assert kernel in _kernels(quantised, tmp_path)


def _kernels(stage: StageGraph, tmp_path) -> set[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    model = ir.to_proto(emit_onnx(stage).model).SerializeToString()
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return {n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node}


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_tables_of_embeddings(scheme):
    ids = torch.tensor([[0, 3, 39, 3]])
    stage = graph_of(lambda call, v, c: call(_ATEN.embedding.default, c["words__w"], v), ids,
                     {"words__w": draw(40, 96)})
    layers = rounded(stage, scheme)
    eager, engine = both(insert_quantised_ops(stage, layers, "onnxruntime"), ids)
    want = next(iter(layers.values())).dequantised()[ids].numpy()
    assert np.array_equal(eager, engine) and np.allclose(eager, want, atol=1e-6)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_tensorrt_gets_static_symmetric_scales(scheme):
    """Explicit Q/DQ: signed, zero point 0; 4-bit weights in blocks, packed; the same function as the eager kernels."""
    stage, x = linear_stage(128, 48, 20)
    lowered = insert_quantised_ops(stage, rounded(stage, scheme), "tensorrt")
    model = ir.to_proto(emit_onnx(lowered, "tensorrt").model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [n.op_type for n in model.graph.node]
    assert kinds.count("QuantizeLinear") == (1 if scheme == "int8" else 0)
    types = {i.name: i.data_type for i in model.graph.initializer}
    weight = next(t for n, t in types.items() if n.endswith(scheme))
    assert weight == (onnx.TensorProto.INT8 if scheme == "int8" else onnx.TensorProto.INT4)
    zeros = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.UINT8]
    assert not zeros
    eager, engine = both(lowered, x, "tensorrt")
    assert np.abs(eager - engine).max() < 2e-5 * np.abs(eager).max()


def test_four_bits_are_packed_and_found_again():
    q = torch.randint(-8, 8, (5, 72), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    packed = pack_int4(q, 32)
    assert packed.dtype == torch.uint8 and packed.shape == (5, 3, 16)
    assert torch.equal(unpack_int4(packed).flatten(1)[:, :72], q)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 6.0), (-2.0, -0.5), (0.0, 0.0)])
def test_steps_hold_zero(low, high):
    scale, zero = step_of(low, high, True)
    assert 0 <= zero <= 255 and scale > 0
    assert (0 - zero) * scale <= min(low, 0.0) + scale and (255 - zero) * scale >= max(high, 0.0) - scale
    signed, none = step_of(low, high, False)
    assert none == 0 and math.isclose(signed * 127, max(-low, high, 1e-12), rel_tol=1e-6)


def _slope(function, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad((function(x) * v).sum(), x)[0]


def test_errors_pass_through_quantised_ops_as_through_the_plain_ones():
    """Their derivative is that of the op with the same weights and without rounding."""
    draw = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=draw)
    whole = lambda low, high, *shape: torch.randint(low, high, shape, generator=draw, dtype=torch.int8)
    x, v = normal(3, 64), normal(3, 10)
    w, scale = whole(-127, 127, 64, 10), torch.rand(10, generator=draw) + 0.1
    got = _slope(lambda x: OPS.linear_int8(x, w, scale, None), x, v)
    assert torch.allclose(got, _slope(lambda x: x @ (w * scale), x, v), rtol=1e-5)
    q, steps = whole(-8, 7, 10, 64), torch.rand(10, 2, generator=draw) + 0.1
    got = _slope(lambda x: OPS.linear_int4(x, pack_int4(q, 32), steps, None, 64, 32), x, v)
    assert torch.allclose(got, _slope(lambda x: x @ (q * steps.repeat_interleave(32, 1)).T, x, v), rtol=1e-5)
    assert torch.equal(_slope(lambda x: OPS.quantise_dequantise(x, 0.1, 0, False), x, normal(3, 64).fill_(2.0)),
                       torch.full((3, 64), 2.0))
    image, kernel, k_scale = normal(1, 4, 6, 6), whole(-127, 127, 8, 2, 3, 3), torch.rand(8, generator=draw) + 0.1
    out = normal(1, 8, 3, 3)
    got = _slope(lambda x: OPS.conv_int8(x, 0.1, kernel, k_scale, None, [2, 2], [1, 1], [1, 1], 2, 0.1, 0, -1e9,
                                         1e9), image, out)
    want = _slope(lambda x: torch.nn.functional.conv2d(x, kernel * k_scale.reshape(-1, 1, 1, 1), None, 2, 1, 1,
                                                       2), image, out)
    assert torch.allclose(got, want, rtol=1e-4)
    other = normal(1, 64)
    got = _slope(lambda y: OPS.add_int8(x, y, 0.1, 0, 0.1, 0, 0.1, 0, -9.0, 9.0), other, normal(3, 64).fill_(1.0))
    assert torch.equal(got, torch.full((1, 64), 3.0))

