"""`pipeline.plan`: stages and where weights went, with weights and without their content."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.samples import policies
from vlacompile.cli.main import main
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.weightless import weightless
from vlacompile.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.pipeline import plan
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import load_recipe


def distinct(policy: Policy) -> Policy:
    """No two weights alike, so that none are merged for their content."""
    for i, weight in enumerate(policy.observe.parameters()):
        weight.data += 0.01 * torch.arange(weight.numel()).view(weight.shape) + 3 * i
    return policy


def without_weights(make) -> Policy:
    with weightless():
        return make()


@pytest.mark.parametrize("make", [policies.flow, policies.late_fusion])
def test_plan_needs_no_weights(make):
    assert plan(without_weights(make)).as_dict() == plan(distinct(make())).as_dict()


class TwoBodies(nn.Module):
    """Weights of their own for each body, a table that the step alone decides, one layer that nothing reads."""

    def __init__(self):
        super().__init__()
        self.body, self.time, self.mix = nn.Parameter(torch.randn(5, 8, 8)), nn.Linear(4, 8), nn.Linear(8, 8)
        self.never = nn.Linear(100, 100)

    def forward(self, body, x, noise) -> dict[str, torch.Tensor]:
        for k in range(3):
            time = self.time(torch.full((1, 4), 0.1 * k))
            noise = noise + torch.tanh(self.mix(noise) * self.body[body][0].sum(0) + x + time)
        return {"action": noise[:, None]}


def two_bodies() -> Policy:
    return Policy("two_bodies", TwoBodies().eval(),
                  {"body": Source("static"), "x": Source("observation"), "noise": Source("step")},
                  {"body": torch.tensor([3]), "x": torch.randn(1, 8), "noise": torch.randn(1, 8)})


@pytest.mark.parametrize("weights", [True, False])
def test_every_weight_is_accounted_for(weights):
    found = plan(two_bodies() if weights else without_weights(two_bodies))
    assert found.parameters == {"all": 5 * 64 + 40 + 72 + 10100, "unread": 10100, "in_stages": 72,
                                "folded": 5 * 64 + 40, "dropped": 0}
    assert {n.rpartition("never__")[2]: size for n, size in found.unread.items()} == {"weight": 10000, "bias": 100}
    made = {tuple(sorted(w.rsplit("__")[-1] for w in f.weights)): f.numbers for f in found.folded}
    assert made == {("body",): 8, ("bias", "weight"): 24}, "one body of five; the time's table"
    assert found.flops["traced"] == sum(v for k, v in found.flops.items() if k != "traced")


def test_constants_without_content_are_told_apart_by_name():
    program = capture(without_weights(lambda: policies.flow(iterations=4)))
    weights = [t for n, t in program.constants.items() if n in program.parameters and not n.endswith("std")]
    assert weights and all(t.is_meta for t in weights)
    merged = EliminateCommonSubexpressions().run(program).program
    assert merged.parameters == program.parameters, "equal shapes, but not the same weight"


def test_what_weights_do_not_enter_is_computed():
    staged = stage(capture(without_weights(two_bodies)), load_target("host"), load_recipe(None)).staged
    assert all(t.is_meta for t in staged.constants.values()), "the table is made of weights"

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(300, 300)
            self.register_buffer("keep", torch.arange(300) < 200)

        def forward(self, x) -> dict[str, torch.Tensor]:
            return {"action": self.mix(x) + torch.where(self.keep[None] & self.keep[:, None], 0.0, -1e9)}

    with weightless():
        policy = Policy("masked", Masked().eval(), {"x": Source("observation")}, {"x": torch.randn(300, 300)})
    staged = stage(capture(policy), load_target("host"), load_recipe(None)).staged
    computed = [t for s in staged.stages for t in s.constants.values() if not t.is_meta]
    assert [float(t.sum()) for t in computed] == [pytest.approx(-1e9 * (300 * 300 - 200 * 200))]


def test_modules_are_as_before_afterwards():
    before = nn.Module.register_parameter, nn.Module._apply
    with pytest.raises(ZeroDivisionError), weightless():
        1 / 0  # noqa: B018
    assert before == (nn.Module.register_parameter, nn.Module._apply)
    assert type(nn.Linear(2, 2).weight.data) is torch.Tensor


def test_shared_and_converted_weights_stay_shared():
    with weightless():
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        b.weight = a.weight
        both = nn.ModuleList([a, b]).to(torch.bfloat16)
    assert both[0].weight is both[1].weight and both[0].weight.dtype == torch.bfloat16
    assert both[0].weight is not both[1].bias


def test_verb(capsys):
    source = "tests.samples.cli_policies:tiny"
    assert main(["plan", source, "--no-weights", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["plan", source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    all_of_them = 8 * 16 + 16 + 4 * 16 + 16 + 16 * 8 + 8
    assert document["parameters"]["all"] == document["parameters"]["in_stages"] == all_of_them
    assert main(["plan", source]) == 0
    text = capsys.readouterr().out
    assert "depends on" in text and "never read" in text and max(map(len, text.splitlines())) <= 80


class TwoViews(nn.Module):
    """One encoder under two names, as two backbones that share it have; each view has a head of its own."""

    def __init__(self, shared: bool):
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.second = self.first if shared else nn.Linear(256, 256)
        self.one, self.two = nn.Linear(256, 7), nn.Linear(256, 7)

    def forward(self, x) -> dict[str, torch.Tensor]:
        return {"action": (self.one(torch.tanh(self.first(x))) + self.two(torch.tanh(self.second(x))))[:, None]}


@pytest.mark.parametrize("shared", [True, False])
def test_an_encoder_with_two_names_runs_once_also_without_weights(shared):
    def make() -> Policy:
        return Policy("views", TwoViews(shared).eval(), {"x": Source("observation")}, {"x": torch.randn(1, 256)})

    found = plan(without_weights(make)).as_dict()
    assert found == plan(distinct(make())).as_dict()
    assert found["flops"]["in_stages"] == 2 * 256 * (256 * (1 if shared else 2) + 14)
