"""FP16: what fp16 breaks is found and kept, and breaks when it is not; what is converted is typed, small and near."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.compiler.precision.fp16.planted import (
    ATEN,
    WEIGHT,
    LogitsInFull,
    SumsInFp16,
    Typed,
    angles,
    attention,
    cancelled,
    errors,
    linear_beyond,
    long_mean,
    planted,
    rms_norm,
    staged_of,
    sum_beyond,
    through_onnx,
    tiny,
    whole,
)
from tests.samples import policies
from vlacompile.compiler.precision.fp16.convert import convert_to_fp16
from vlacompile.compiler.precision.fp16.keep_fp32 import find_kept_fp32
from vlacompile.compiler.precision.fp16.range_scan import scan
from vlacompile.compiler.precision.fp16.rewrite import to_fp16, with_f32_sums
from vlacompile.compiler.staging.choose_solver import calibration
from vlacompile.compiler.staging.run_stages import StageRunner, stage_module
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import LoopRecipe

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


CHOSEN = {
    "argmax": lambda scores: scores.argmax(-1),
    "argmin": lambda scores: (-scores).argmin(-1),
    "max": lambda scores: scores.max(-1).indices,
    "topk": lambda scores: scores.topk(3, -1).indices[:, -1],
    "smallest of topk": lambda scores: scores.neg().topk(3, -1, largest=False).indices[:, -1],
}


@pytest.mark.parametrize("how", CHOSEN)
def test_scores_that_fp16_cannot_tell_apart_stay_fp32(how):
    """Sixty-four scores of which the best leads by a 16,000th, or by a fourth, of their size."""
    def choose(step):
        ramp = torch.ones(16, 64) + step * torch.arange(64.0)
        return lambda x: x + F.one_hot(CHOSEN[how](x.abs() @ ramp), 64).float()[:, -16:]

    kinds, off = [], []
    for step in (1 / 16000, 0.25):
        staged, observations = planted(choose(step), 1, 16)
        half = convert_to_fp16(staged, observations)
        kinds.append([p.kind for n, p in half.stages[0].kept_fp32.items() if n == "matmul"])
        off.append(errors(staged, half.staged.stages, observations))
    assert kinds == [["decision"], []]
    assert max(off) < 2e-3
    staged, observations = planted(choose(1 / 16000), 1, 16)
    assert errors(staged, [to_fp16(s, ()) for s in staged.stages], observations) > 0.05


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
    def pooled(x):
        small = F.avg_pool3d(x.reshape(1, 1, 4, 8, 4), 2)
        return F.linear(small.reshape(1, 16), WEIGHT)

    staged, observations = planted(pooled, 1, 128)
    half = convert_to_fp16(staged, observations)
    assert "unknown" in {p.kind for s in half.stages for n, p in s.kept_fp32.items() if "pool" in n}
    with pytest.raises(NotImplementedError):
        errors(staged, [to_fp16(s, ()) for s in staged.stages], observations)


@pytest.mark.parametrize("adds", [
    lambda x, at: x.index_add(1, at, 2 * x), lambda x, at: x.scatter_add(1, at.expand_as(x), 2 * x),
    lambda x, at: x.index_put((torch.tensor([0]), at), 2 * x[0], accumulate=True)], ids=["add", "scatter", "put"])
def test_sums_at_indices_stay_fp32(adds):
    """ONNX Runtime, which stands in for a board, does not add there in fp16."""
    staged, observations = planted(lambda x: F.linear(adds(x, torch.arange(128) // 2), torch.eye(128)[:16]), 1, 128)
    half = convert_to_fp16(staged, observations)
    assert "adds where indices say" in {p.why.partition(":")[0] for s in half.stages for p in s.kept_fp32.values()}


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
