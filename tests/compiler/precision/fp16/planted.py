"""Policies with something planted that fp16 breaks, and engines of fp16 in PyTorch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Interpreter, Node

from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.precision.fp16.convert import Fp16Limits
from vlacompile.compiler.staging.run_stages import StageRunner, stage_module
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.phases.read_inputs import resolve
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import load_recipe

ATEN = torch.ops.aten
# Of ONNX Runtime against FP32 from the same inputs, relative L2. PyTorch may be as far from it as Fp16Limits.stage;
# other kernels round elsewhere (convolutions take batch norms in, masked rows keep f32 sums): half as much for that.
ONNX_TOLERANCE = 1.5 * Fp16Limits().stage
LOOSE = Fp16Limits(stage=math.inf, action=math.inf)


def staged_of(policy: Policy, recipe: str | None = None) -> Staged:
    return stage(capture(policy), load_target("host"), resolve(load_recipe(recipe), policy)).staged


def planted(function, *shape: int, scale: float = 1.0, offset: float = 0.0) -> tuple[Staged, list[dict]]:
    """A policy of one input and its staged graphs, with observations."""
    torch.manual_seed(0)
    draw = lambda: {"x": torch.randn(*shape) * scale + offset}
    module = _Call(function).eval()
    policy = Policy("planted", module, {"x": Source("observation")}, draw())
    return staged_of(policy), [draw() for _ in range(3)]


class _Call(nn.Module):
    """Ends in a product and an epilogue, so that what is planted is inside of a network."""

    def __init__(self, function):
        super().__init__()
        self.function, self.head = function, nn.Linear(16, 14)

    def forward(self, x):
        return {"action": torch.tanh(self.head(self.function(x))).reshape(1, 2, 7)}


def errors(staged: Staged, stages, observations, interpreter=None) -> float:
    """Relative L2 of the action with these stages, against FP32; NaN where it is not finite."""
    mixed = StageRunner(replace(staged, stages=tuple(stages)),
                        interpreter and (lambda s: interpreter(stage_module(s)).run))
    got = torch.cat([mixed.run(o)["action"] for o in observations])
    want = torch.cat([StageRunner(staged).run(o)["action"] for o in observations])
    return float((got - want).norm() / want.norm())


class SumsInFp16(Interpreter):
    """An engine that adds up in fp16, one after the other: `mean` and `sum` over the last dimension."""

    def call_function(self, target, args, kwargs):
        if target in (ATEN.mean.dim, ATEN.sum.dim_IntList) and args[0].dtype == torch.float16:
            total = torch.zeros(args[0].shape[:-1], dtype=torch.float16)
            for column in args[0].unbind(-1):
                total = total + column
            total = total / (args[0].shape[-1] if target is ATEN.mean.dim else 1)
            return total[..., None] if len(args) > 2 and args[2] else total
        return super().call_function(target, args, kwargs)


class LogitsInFull(Interpreter):
    """An engine that rounds nothing between a product and the softmax behind it, as fused attentions do."""

    def run_node(self, n):
        if n.meta.get("val") is None or n.meta["val"].dtype != torch.float16:
            return super().run_node(n)
        got = super().run_node(n)
        if n.target in (ATEN.add.Tensor, ATEN.masked_fill.Scalar):
            args = [self.env[a].float() if isinstance(a, Node) and self.env[a].is_floating_point() else
                    self.env[a] if isinstance(a, Node) else a for a in n.args]
            return n.target(*args)
        return got.half() if got.dtype == torch.float32 else got


WEIGHT = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))


def sum_beyond(x):  # a sum of 2e5 that is divided afterwards
    return F.linear(x.sum(-1, keepdim=True) / 2000 + x[:, :16], WEIGHT)


def linear_beyond(x):
    return F.linear(F.linear(x, WEIGHT * 3e4) / 3e4, WEIGHT)


def tiny(x):
    return F.linear(torch.relu(x * 1e-7) * 1e7, WEIGHT)


def long_mean(x):
    return F.linear(x.mean(-1, keepdim=True) + 0.01 * x[:, :16], WEIGHT)


def rms_norm(x):
    return F.linear(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), WEIGHT)


def attention(x):
    scores = torch.matmul(x, F.linear(x, WEIGHT).transpose(1, 2))
    return F.linear(torch.matmul(torch.softmax(scores, -1), x), WEIGHT).mean(1)


def cancelled(x):
    return F.linear((x + 1000.0) - 1000.0, WEIGHT)


def angles(x):
    places = torch.cumsum((x > -1e9).long(), -1).float() * 123.4
    return F.linear(torch.sin(places) * x, WEIGHT)


def whole(x):
    return F.linear(torch.floor(x * 40.0) * 0.1, WEIGHT)


class Typed(Interpreter):
    """Fails at the first node that gives another dtype or shape than its meta says, or mixes f16 with f32."""

    def run_node(self, n):
        result = super().run_node(n)
        if n.op != "output":
            for got, said in zip(_tensors(result), _tensors(n.meta["val"]), strict=True):
                assert got.dtype == said.dtype, n.format_node()
            assert not isinstance(result, torch.Tensor) or result.shape == n.meta["val"].shape, n.format_node()
        if n.op == "call_function" and n.target is not ATEN._to_copy.default:
            floats = {t.dtype for i in n.all_input_nodes for t in _tensors(i.meta["val"]) if t.is_floating_point()}
            assert len(floats) <= 1, n.format_node()
        return result


def _tensors(value):
    return [value] if isinstance(value, torch.Tensor) else [v for v in value if isinstance(v, torch.Tensor)]


def through_onnx(plain: Staged, staged: Staged, inputs, tolerance: float = ONNX_TOLERANCE) -> None:
    """Every fp16 stage: typed as ONNX, and in ONNX Runtime as near to FP32 from the same inputs."""
    values = StageRunner(plain).run(inputs)
    for before, s in zip(plain.stages, staged.stages, strict=True):
        model = ir.to_proto(emit_onnx(s).model)
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        kinds = {v.type.tensor_type.elem_type for v in inferred.graph.value_info}
        products = [n for n in s.graph.nodes if n.target is ATEN.linear.default
                    and n.meta["val"].dtype == torch.float16]
        assert onnx.TensorProto.FLOAT16 in kinds or not products
        assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}.isdisjoint(
            {onnx.TensorProto.FLOAT16})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        feed = [_fed(plain, p, s, i, values) for i, p in enumerate(s.inputs)]
        wanted = stage_module(before)(*feed)
        given = session.run(None, {p.name: t.numpy() for p, t in zip(s.inputs, feed, strict=True)})
        for port, got, want in zip(s.outputs, given, wanted, strict=True):
            want = want.detach().numpy()
            assert got.dtype == want.dtype
            got, want = (np.maximum(x.astype(np.float64), -(2.0 ** 13)) for x in (got, want))  # masks are masks
            assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want), (s.name, port.name)


def _fed(staged: Staged, port, s: StageGraph, position: int, values) -> torch.Tensor:
    if port.mode == "carry":
        return values[next(c.initial for c in s.carries if c.input == position)]
    value = StageRunner(staged).read(port.value, values, {})
    return value[0] if port.mode == "row" else value
