"""FP16: what fp16 breaks is found and kept, and breaks when it is not; what is converted is typed, small and near."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Interpreter, Node

from examples.libero_goal import policy as libero
from examples.libero_goal import recordings
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.emit.onnx.onnx_stage import emit_onnx
from vlacompile.compiler.precision.fp16.convert import Fp16Limits, convert_to_fp16
from vlacompile.compiler.precision.fp16.error_attribution import attribute_error
from vlacompile.compiler.precision.fp16.keep_fp32 import KeepRules, find_kept_fp32
from vlacompile.compiler.precision.fp16.range_scan import scan
from vlacompile.compiler.precision.fp16.rewrite import to_fp16, with_f32_sums
from vlacompile.compiler.precision.quantise.ops import OPS
from vlacompile.compiler.staging.choose_solver import calibration
from vlacompile.compiler.staging.run_stages import StageRunner, stage_module
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.errors import PrecisionError
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.phases.read_inputs import resolve
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import LoopRecipe, load_recipe

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


PLANTED = {
    # function, shape of the input, scale and offset, what is kept and why, error without the kept_fp32
    "a sum beyond fp16": (sum_beyond, (1, 4096), 1.0, 50.0, {"sum": "overflow"}, math.inf),
    "a linear beyond fp16": (linear_beyond, (1, 16), 1.0, 0.0, {"linear": "overflow", "div": "reads"}, math.inf),
    "values below fp16": (tiny, (1, 16), 1.0, 0.0, {"mul": "underflow", "relu": "underflow"}, 0.01),
    "a norm of large values": (rms_norm, (1, 16), 500.0, 0.0, {"pow": "norm", "mean": "norm", "rsqrt": "norm"}, 0.1),
    "logits beyond fp16": (attention, (1, 8, 16), 120.0, 0.0, {"softmax": "logits", "matmul": "overflow"}, math.inf),
    "a difference of large values": (cancelled, (1, 16), 1.0, 0.0, {"sub": "rounding"}, 0.05),
    "large angles": (angles, (1, 16), 1.0, 0.0, {"sin": "position", "mul": "position"}, 0.02),
    "a floor": (whole, (1, 16), 1.0, 0.0, {"floor": "decision", "mul": "decision"}, 0.0),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_fp16_breaks_is_pinned_and_breaks_without_the_pin(name):
    function, shape, scale, offset, wanted, without = PLANTED[name]
    staged, observations = planted(function, *shape, scale=scale, offset=offset)
    half = convert_to_fp16(staged, observations)
    kept_fp32 = {(re.sub(r"_\d+$", "", n), p.kind) for s in half.stages for n, p in s.kept_fp32.items()}
    assert kept_fp32 >= set(wanted.items()), kept_fp32
    assert half.repaired == 0
    assert errors(staged, half.staged.stages, observations) < 2e-3
    bare = errors(staged, [to_fp16(s, ()) for s in staged.stages], observations)
    assert math.isnan(bare) or bare > without, bare


def test_a_long_sum_is_not_left_to_an_accumulator_of_fp16():
    staged, observations = planted(long_mean, 1, 8192, scale=0.1, offset=1.0)
    half = convert_to_fp16(staged, observations)
    pin = half.stages[0].kept_fp32["mean"]
    assert pin.kind == "accumulation" and "8192 terms" in pin.why
    assert errors(staged, half.staged.stages, observations, SumsInFp16) < 2e-3
    assert errors(staged, [to_fp16(s, ()) for s in staged.stages], observations, SumsInFp16) > 0.05


def test_logits_inside_of_an_attention_are_looked_at():
    def attend(x):
        q = F.linear(x, WEIGHT)[:, None]
        return F.linear(F.scaled_dot_product_attention(q, x[:, None], x[:, None])[:, 0], WEIGHT).mean(1)

    kinds = []
    for scale in (1.0, 600.0):
        staged, observations = planted(attend, 1, 8, 16, scale=scale)
        kept_fp32 = find_kept_fp32(staged, scan(staged, observations))[staged.stages[0].name]
        kinds.append([p.kind for n, p in kept_fp32.items() if n.startswith("scaled_dot")])
    assert kinds == [[], ["logits"]]
    x = observations[0]["x"].half()
    assert not torch.isfinite(F.linear(x, WEIGHT.half()) @ x.transpose(1, 2)).all()  # where attention is written out


class Drift(nn.Module):
    """What is carried is large, and moves in steps that fp16 does not see."""

    def __init__(self, iterations: int = 24):
        super().__init__()
        self.iterations, self.net, self.read = iterations, nn.Sequential(nn.Linear(7, 64), nn.GELU(), nn.Linear(64, 64),
                                                                         nn.GELU(), nn.Linear(64, 7)), nn.Linear(9, 7)

    def forward(self, state, noise):
        x, seen = noise + 30.0, self.read(state)[:, None]
        for k in range(self.iterations):
            x = x + (1.0 + self.net(x / 30 + seen)) * (0.005 + 0.0001 * k)
        return {"action": (x - 30.0) * 2.0}


def drift() -> Policy:
    torch.manual_seed(0)
    return Policy("drift", Drift().eval(), {"state": Source("observation"), "noise": Source("step")},
                  {"state": torch.randn(1, 9), "noise": torch.randn(1, 5, 7)})


@pytest.mark.parametrize("form", ["steps", "fused"])
def test_what_a_loop_carries_stays_fp32(form, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(policies.EVERY_STAGE.replace('"steps"', f'"{form}"'), encoding="utf-8")
    policy = drift()
    staged, observations = staged_of(policy, str(recipe)), calibration(policy, LoopRecipe())
    loop = next(s for s in staged.stages if s.name == "step")
    assert bool(loop.carries) == (form == "steps")
    half = convert_to_fp16(staged, observations)
    kinds = [p.kind for s in half.stages if s.name == "step" for p in s.kept_fp32.values()]
    assert kinds.count("accumulator") >= (2 if form == "steps" else 2 * 24)
    products = [n for s in half.staged.stages for n in s.graph.nodes if n.target is ATEN.linear.default]
    assert sum(n.meta["val"].dtype == torch.float16 for n in products) >= len(products) / 2  # the network is fp16
    assert half.action_error < 2e-3
    bare = [to_fp16(s, ()) if s.name == "step" else s for s in staged.stages]
    assert errors(staged, bare, observations) > 0.1


def test_masks_end_where_fp16_does():
    rows = torch.arange(8)[:, None] > 0  # the first query sees nothing

    def masked(x):
        keep = (x[:, None, :, 0] > -0.5) & rows
        added = torch.where(keep, 0.0, torch.finfo(torch.float32).min)
        scores = torch.matmul(x, x.transpose(1, 2)) + added
        scores = torch.where(keep, scores, torch.finfo(torch.float32).min)
        return F.linear(torch.matmul(torch.softmax(scores, -1), x), WEIGHT).mean(1)

    staged, observations = planted(masked, 1, 8, 16)
    half = convert_to_fp16(staged, observations)
    assert {p.kind for s in half.stages for p in s.kept_fp32.values()} <= {"action", "between", "decision"}  # x > -0.5
    assert errors(staged, half.staged.stages, observations) < 2e-3
    numbers = [a for s in half.staged.stages for n in s.graph.nodes for a in n.args
               if isinstance(a, float) and n.meta["val"].dtype == torch.float16]
    assert min(numbers) == -(2.0 ** 14)
    assert math.isnan(errors(staged, [to_fp16(s, (), masked=()) for s in staged.stages], observations))


def test_rows_of_hidden_keys_are_equal_whoever_adds():
    """A query that sees nothing averages all keys, in f32 and in fp16; sums of logits and a mask of fp16's size would
    weigh them by logits that do not count, and by others where an engine keeps the sums in f32."""
    def masked(x):
        keep = (x[:, None, :, 0] > -9.0) & (torch.arange(8)[:, None] > 3)
        scores = torch.matmul(x, x.transpose(1, 2)) + torch.where(keep, 0.0, torch.finfo(torch.float32).min)
        return F.linear(torch.matmul(torch.softmax(scores, -1), x), WEIGHT).mean(1)

    staged, observations = planted(masked, 1, 8, 16)

    stages = [to_fp16(s, ()) for s in staged.stages]
    assert max(errors(staged, stages, observations, how) for how in (None, LogitsInFull)) < 2e-3
    hidden = [n for s in stages for n in s.graph.nodes if n.name.endswith("_hidden")]
    assert hidden
    for node in hidden:
        node.replace_all_uses_with(node.args[0])
    assert min(errors(staged, stages, observations, how) for how in (None, LogitsInFull)) > 1e-2


def test_an_op_without_a_kernel_stays_fp32():
    def resized(x):
        small = F.interpolate(x.reshape(1, 1, 8, 8), size=(4, 4), mode="bilinear", antialias=True)
        return F.linear(small.reshape(1, 16), WEIGHT)

    staged, observations = planted(resized, 1, 64)
    half = convert_to_fp16(staged, observations)
    assert "unknown" in {p.kind for s in half.stages for n, p in s.kept_fp32.items() if "upsample" in n}
    with pytest.raises(NotImplementedError):
        errors(staged, [to_fp16(s, ()) for s in staged.stages], observations)


def test_a_constant_that_both_read_is_stored_in_both():
    shared = nn.Linear(16, 16)

    def twice(x):
        return shared(F.linear(x, WEIGHT)) + (F.linear(x, shared.weight * 1.0) + 1000.0) - 1000.0

    staged, _ = planted(twice, 1, 16)
    s = staged.stages[0]
    weight = next(n for n in s.graph.nodes if n.op == "get_attr" and len(n.users) > 1)
    one = next(u.name for u in weight.users if u.op == "call_function")
    half = to_fp16(s, {one})
    assert half.constants[weight.target].dtype == torch.float32
    assert half.constants[f"{weight.target}__f16"].dtype == torch.float16
    assert torch.equal(half.constants[f"{weight.target}__f16"], s.constants[weight.target].half())
    assert all(t.dtype == torch.float16 for t in to_fp16(s, ()).constants.values())


SMALL = {"flow": policies.flow, "late_fusion": policies.late_fusion, "remember": policies.remember,
         "two_cameras": policies.two_cameras}


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


@pytest.mark.parametrize("name", SMALL)
def test_any_choice_of_pins_is_strongly_typed(name, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(policies.EVERY_STAGE, encoding="utf-8")
    policy = SMALL[name]()
    staged, draw = staged_of(policy, str(recipe)), random.Random(0)
    inputs = calibration(policy, LoopRecipe())[0]
    plain = StageRunner(staged).run(inputs)
    for share in (0.0, 0.3, 0.7, 1.0):
        stages = [to_fp16(s, {n.name for n in s.graph.nodes if draw.random() < share}) for s in staged.stages]
        got = StageRunner(replace(staged, stages=tuple(stages)), lambda s: Typed(stage_module(s)).run).run(inputs)
        for before, after in zip(staged.stages, stages, strict=True):
            casts = [(n.args[0], n.kwargs["dtype"]) for n in after.graph.nodes
                     if n.target is ATEN._to_copy.default and n.name.endswith(("_f16", "_f32"))]
            assert len(casts) == len(set(casts))
            assert not any(source.target is ATEN._to_copy.default and source.name.endswith(("_f16", "_f32"))
                           for source, _ in casts)
            assert [p.name for p in before.outputs] == [p.name for p in after.outputs]
        for port in (p for s in staged.stages for p in s.outputs):
            assert got[port.value].dtype == plain[port.value].dtype
        if share == 1.0:
            assert all(torch.equal(got[n], plain[n]) for s in staged.stages for n in (p.value for p in s.outputs))


@pytest.mark.parametrize("name", SMALL)
def test_small_policies_in_fp16(name, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(policies.EVERY_STAGE, encoding="utf-8")
    policy = SMALL[name]()
    staged, observations = staged_of(policy, str(recipe)), calibration(policy, LoopRecipe())
    half = convert_to_fp16(staged, observations)
    assert half.action_error < 5e-3 and half.repaired == 0
    before, after = sum(s.before for s in half.stages), sum(s.made.weights for s in half.stages)
    assert after < 0.6 * before
    quick = replace(half.staged, stages=tuple(with_f32_sums(s) for s in half.staged.stages))
    for inputs in observations:  # what is checked is what PyTorch's own fp16 kernels give
        a, b = (StageRunner(x).run(inputs)["action"] for x in (quick, half.staged))
        assert float((a - b).norm() / b.norm()) < 2e-3
    through_onnx(staged, half.staged, observations[0], 3e-3)


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


BLIND = KeepRules(stored=math.inf, local=math.inf)


def test_what_the_rules_miss_is_repaired():
    staged, observations = planted(cancelled, 1, 16)
    loose = convert_to_fp16(staged, observations, replace(LOOSE, kept_fp32=BLIND))
    assert loose.repaired == 0 and loose.action_error > 0.02
    half = convert_to_fp16(staged, observations, Fp16Limits(kept_fp32=BLIND))
    assert half.action_error < 0.01 and half.repaired
    repaired = {n: p for s in half.stages for n, p in s.kept_fp32.items() if p.kind == "error"}
    assert "add" in repaired and "sub" in repaired and "% of the error of the stage" in repaired["add"].why
    assert "nodes kept by the check" in half.lines()[-1]


@torch.library.custom_op("tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


doubled.register_fake(torch.empty_like)


def last_added(y):
    y = y.clone()
    y[..., -1] += 2
    return y


def every_second(y):
    y = y.clone()
    y[:, 1::2] *= 0.5
    return y


WITHOUT_DERIVATIVE = {
    "last_added": last_added, "every_second": every_second, "custom": doubled,
    "heaviside": lambda y: y * torch.heaviside(y, torch.tensor(0.5)),
    "floor_divide": lambda y: torch.floor_divide(y, 0.3),
    "cummax": lambda y: y.cummax(-1)[0], "argsort": lambda y: y.argsort(-1).float(), "floor": lambda y: (8 * y).floor(),
    "searchsorted": lambda y: torch.searchsorted(torch.linspace(-1, 1, 9), y).float(), "zero_over_zero": lambda y: y + (
        y / (y - y)).nan_to_num(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("name", WITHOUT_DERIVATIVE)
def test_influence_does_not_need_derivatives(name):
    """What fp16 does to the first layer reaches the outputs, by slopes or by what is seen when it is done."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(32, 8, generator=draw), torch.randn(12, 32, generator=draw)

    def function(state):
        return {"action": torch.nn.functional.linear(WITHOUT_DERIVATIVE[name](torch.nn.functional.linear(state, first)),
                                                     second
                                                     ).reshape(1, 2, 6)}

    policy = Policy(name, function, {"state": Source("observation")}, {"state": torch.randn(1, 8, generator=draw)})
    staged = staged_of(policy)
    stage = staged.stages[0]
    observations = [{"state": torch.randn(1, 8, generator=draw)} for _ in range(4)]
    found = attribute_error(staged, stage, observations, frozenset())
    linear = next(n.name for n in stage.graph.nodes if "linear" in str(n.target))
    assert all(math.isfinite(v.weights) and math.isfinite(v.result) for v in found.values())
    steps = name in ("argsort", "floor", "searchsorted")  # a step is taken, or it is not
    assert steps or found[linear].weights > 0


def test_a_step_is_seen_where_it_is_taken():
    """A sum that fp16 moves across the edge of a floor: no slope says so."""
    weight = torch.full((4, 8), 1.0)
    weight[:, 0] = 1.0 - 2.0 ** -13  # rounds to 1 in fp16

    def function(state):
        return {"action": torch.nn.functional.linear(state, weight).floor().reshape(1, 1, 4)}

    state = torch.zeros(1, 8)
    state[0, 0] = 1.0
    staged = staged_of(Policy("edge", function, {"state": Source("observation")}, {"state": state + 0.5}))
    found = attribute_error(staged, staged.stages[0], [{"state": state}], frozenset())
    assert max(v.weights for v in found.values()) > 0.5


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of torch.export, about how nn.GRU keeps its weights
def test_a_recurrence_in_fp16():
    torch.manual_seed(0)
    net, head = torch.nn.GRU(16, 32, batch_first=True).eval(), torch.nn.Linear(32, 7).eval()

    def function(x):
        return {"action": head(net(x)[0])}

    made = Policy("recurrent", function, {"x": Source("observation")}, {"x": torch.randn(1, 6, 16)})
    staged = staged_of(made)
    half = convert_to_fp16(staged, calibration(made, LoopRecipe()), Fp16Limits())
    assert half.action_error < 0.01 and sum(s.made.nodes for s in half.stages) > 0
    kinds = {str(n.target): n.meta["val"] for s in half.staged.stages for n in s.graph.nodes if n.op == "call_function"}
    assert all(v.dtype == torch.float16 for t, val in kinds.items() if "gru" in t for v in val)


def test_what_cannot_be_reached_is_said():
    policy = policies.late_fusion()
    staged, observations = staged_of(policy), calibration(policy, LoopRecipe())
    with pytest.raises(PrecisionError) as caught:
        convert_to_fp16(staged, observations, Fp16Limits(action=1e-5, rounds=1))
    assert "best reached: action error" in caught.value.why and "limit 1e-05" in caught.value.why
    assert caught.value.exit_code == 11


def test_a_stage_in_int8_may_be_as_far_off_as_its_steps_are_wide():
    """Of numbers that lie between two steps of 8 bits, fp16 takes some to the other one."""
    generator = torch.Generator().manual_seed(0)
    x, first, second = (torch.randn(*shape, generator=generator) for shape in ((1, 64, 64), (64, 64), (64, 64)))

    def function(x):
        return {"action": OPS.quantise_dequantise(x @ first, 16.0, 0, False) @ second}

    policy = Policy("rounded", function, {"x": Source("observation")}, {"x": x})
    staged, limits = staged_of(policy), Fp16Limits(action=math.inf)
    half = convert_to_fp16(staged, [{"x": x}], limits)
    assert not half.repaired and limits.stage < half.stages[0].error <= limits.quantised
    assert convert_to_fp16(staged, [{"x": x}], replace(limits, quantised=limits.stage)).repaired


@pytest.mark.skipif(not libero.checkpoint("light").is_file(), reason="the light member has not been trained")
def test_a_trained_policy_in_fp16(capsys):
    staged = staged_of(libero.light(), str(Path("recipes/libero-goal.toml")))
    rows = recordings.load()[::5]
    observations = []
    for row in rows:
        tokens, mask = libero.tokenize("light", row.instruction)
        images = {libero.IMAGES[c]: torch.from_numpy(i)[None] for c, i in row.images.items()}
        observations.append({libero.TOKENS: tokens, libero.MASK: mask, libero.STATE: torch.from_numpy(row.state)[None],
                             **images})
    half = convert_to_fp16(staged, observations)
    with capsys.disabled():
        print("\n" + "\n".join(half.lines()))
    assert half.action_error <= 0.01 and max(s.error for s in half.stages) <= 0.01
    assert sum(s.made.weights for s in half.stages) < 0.55 * sum(s.before for s in half.stages)
    through_onnx(staged, half.staged, observations[0])
