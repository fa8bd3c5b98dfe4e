"""What the rules miss is found by its error, kept and repaired; what cannot be reached is said."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.libero_goal import policy as libero
from examples.libero_goal import recordings
from tests.compiler.precision.fp16.planted import LOOSE, cancelled, planted, staged_of, through_onnx
from tests.samples import policies
from vlacompile.compiler.precision.fp16.convert import Fp16Limits, convert_to_fp16
from vlacompile.compiler.precision.fp16.error_attribution import attribute_error
from vlacompile.compiler.precision.fp16.keep_fp32 import KeepRules
from vlacompile.compiler.precision.quantise.ops import OPS
from vlacompile.compiler.staging.choose_solver import calibration
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import LoopRecipe
from vlart.errors import PrecisionError

BLIND = KeepRules(stored=math.inf, local=math.inf)


def test_what_the_rules_miss_is_repaired():
    staged, observations = planted(cancelled, 1, 16)
    loose = convert_to_fp16(staged, observations, replace(LOOSE, rules=BLIND))
    assert loose.repaired == 0 and loose.action_error > 0.02
    half = convert_to_fp16(staged, observations, Fp16Limits(rules=BLIND))
    assert half.action_error < 0.01 and half.repaired
    repaired = {n: p for s in half.stages for n, p in s.kept_fp32.items() if p.kind == "error"}
    assert "add" in repaired and "sub" in repaired and "% of the error of the stage" in repaired["add"].why
    assert "nodes kept in FP32 by the check" in half.lines()[-1]


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
