"""Which layers a precision may be chosen for, found in the graphs; and what rules say of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.assign.candidates import admits, choices, protected
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import LoopRecipe, StagesRecipe, load_recipe
from vlart.errors import ConfigError

INT8 = PrecisionRecipe(layers="int8")


def staged_of(policy, form: str = "auto", min_flops: int | None = 0):
    recipe = replace(load_recipe(None), loop=LoopRecipe(form=form), stages=StagesRecipe(min_flops))
    return stage(capture(policy), load_target("host"), recipe, policy).staged


def why(staged) -> dict[str, set[str]]:
    """{weight: why it keeps the base}, small ones apart"""
    found: dict[str, set[str]] = {}
    kept = protected(staged)
    for s in staged.stages:
        for layer in layers_of(s):
            reason = kept.get((layer.stage, layer.node), "")
            if reason and reason != "small":
                found.setdefault(layer.weight.replace("policy__", ""), set()).add(reason)
    return found


@pytest.mark.parametrize("form", ["steps", "fused"])
def test_layers_that_touch_the_denoised_actions_are_kept_whatever_the_form_of_the_loop(form):
    found = why(staged_of(policies.flow(), form))
    assert found["embed__weight"] == {"reads noise or a loop's state"}
    assert found["head__weight"] == {"writes actions or a loop's state"}
    assert set(found) == {"embed__weight", "head__weight"}


class Sizes(nn.Module):
    """A wide middle between the observation and the action, and a side output with a layer of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.narrow, self.middle = nn.Linear(64, 128), nn.Linear(128, 8), nn.Linear(8, 1024)
        self.last, self.side = nn.Linear(1024, 32), nn.Linear(1024, 64)

    def forward(self, state):
        x = self.middle(torch.tanh(self.narrow(torch.relu(self.first(state)))))
        return {"action": torch.tanh(self.last(torch.relu(x))).reshape(1, 8, 4) * 2, "side": self.side(x)}


@pytest.fixture(scope="module")
def sizes():
    return staged_of(vc.Policy("sizes", Sizes().eval(), {"state": vc.Source("observation")},
                               {"state": torch.linspace(-1, 1, 64)[None]}, outputs=("action", "side")))


def schemes(staged, recipe) -> dict[str, tuple[str, str]]:
    return {c.layer.weight.split("__")[1]: (c.scheme, c.decided) for c in choices(staged, recipe)}


def test_small_layers_and_the_last_one_keep_the_base(sizes):
    kept = ("fp32", "default")
    assert schemes(sizes, INT8) == {"first": ("int8", "default"), "narrow": kept, "middle": ("int8", "default"),
                                    "last": kept, "side": ("int8", "default")}


def test_what_only_another_output_reads_does_not_touch_actions(sizes):
    assert why(sizes) == {"last__weight": {"writes actions or a loop's state"}}


def test_the_last_rule_wins_and_reaches_what_is_kept(sizes):
    rules = (PrecisionRule("*.last.weight", "int4"), PrecisionRule("*", "fp16"), PrecisionRule("policy.first*", "fp32"))
    found = schemes(sizes, replace(INT8, rule=rules))
    assert found == dict.fromkeys(("narrow", "middle", "last", "side"), ("fp16", "rule")) | {"first": ("fp32", "rule")}
    found = schemes(sizes, replace(INT8, rule=rules[::-1]))
    assert found == dict.fromkeys(("first", "narrow", "middle", "side"), ("fp16", "rule")) | {"last": ("int4", "rule")}


def test_a_rule_names_blocks_with_their_stage():
    staged = staged_of(policies.two_cameras(), min_flops=0)
    groups = sorted({c.layer.group for c in choices(staged, INT8)})
    named = PrecisionRule(groups[0], "fp16")
    assert {c.layer.group for c in choices(staged, replace(INT8, rule=(named,))) if c.decided == "rule"} == {groups[0]}
    all_of_it = PrecisionRule(groups[0].split("/")[0] + "/*", "fp16")
    found = {c.layer.stage for c in choices(staged, replace(INT8, rule=(all_of_it,))) if c.decided == "rule"}
    assert found == {groups[0].split("/")[0]}


def test_a_rule_that_matches_nothing_is_an_error_that_knows_better(sizes):
    rules = (PrecisionRule("*", "int8"), PrecisionRule("state/polic", "fp32"))
    with pytest.raises(ConfigError) as error:
        choices(sizes, replace(INT8, rule=rules))
    assert error.value.what == '"state/polic" matches no layer' and error.value.where == "precision.rule 2 of 2"
    assert error.value.why == 'did you mean "state/policy"?'


def test_a_convolution_has_no_4_bits():
    staged = staged_of(policies.late_fusion())
    convolution = next(x for s in staged.stages for x in layers_of(s) if x.kind == "conv")
    path = convolution.weight.replace("__", ".")
    with pytest.raises(ConfigError, match="cannot be int4"):
        choices(staged, replace(INT8, rule=(PrecisionRule(path, "int4"),)))
    of_all = {c.layer.weight: c for c in choices(staged, replace(INT8, rule=(PrecisionRule("*", "int4"),)))}
    assert of_all[convolution.weight].scheme != "int4"
    assert any(c.scheme == "int4" and c.layer.kind == "linear" for c in of_all.values())


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.each = nn.Conv2d(1, 64, 3, 2, 1), nn.Conv2d(64, 64, 9, 1, 4, groups=64)
        self.mix, self.out = nn.Conv2d(64, 128, 1), nn.Linear(128, 4)

    def forward(self, x):
        seen = torch.relu(self.mix(torch.relu(self.each(torch.relu(self.first(x))))))
        return {"action": torch.tanh(self.out(seen.mean((2, 3))))}


def test_a_depthwise_convolution_is_in_int8_where_the_engine_has_a_kernel_for_it():
    staged = staged_of(vc.Policy("depthwise", Depthwise().eval(), {"x": vc.Source("observation")},
                                 {"x": torch.rand(1, 1, 32, 32)}))
    found = {b: {c.layer.weight.split("__")[1]: c for c in choices(staged, INT8, b)}
             for b in ("onnxruntime", "tensorrt")}
    assert [n for n, c in found["tensorrt"].items() if c.layer.depthwise] == ["each"]  # of one channel in all, none is
    assert found["onnxruntime"]["each"].scheme == found["tensorrt"]["mix"].scheme == "int8"
    assert (found["tensorrt"]["each"].scheme,
            found["tensorrt"]["each"].why) == ("fp32", "no kernel for a depthwise convolution in int8")
    assert admits(found["tensorrt"]["each"].layer, "tensorrt") == ("fp32", "fp16")
    with pytest.raises(ConfigError, match="cannot be int8"):
        choices(staged, replace(INT8, rule=(PrecisionRule("*each*", "int8"),)), "tensorrt")
