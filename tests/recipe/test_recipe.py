"""What a recipe may say of precision: every shipped one loads, nonsense is refused with its key."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

import vlacompile as vc
from vlacompile.cli.listing import flat
from vlacompile.compiler.precision.quantise import histogram, quantise
from vlacompile.compiler.precision.quantise.quantise import Method
from vlacompile.files.toml import shipped
from vlacompile.recipe import quantisation_methods as methods
from vlacompile.recipe.precision_recipe import PrecisionRule
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import ConfigError


@pytest.fixture
def recipe(tmp_path):
    def load(text: str):
        path = tmp_path / "r.toml"
        path.write_text(f'name = "r"\ndescription = ""\n[precision]\n{text}\n', encoding="utf-8")
        return load_recipe(str(path)).precision

    return load


def test_every_shipped_recipe_loads_and_those_of_a_pair_differ_in_precision_alone():
    recipes = {name: load_recipe(name) for name in shipped("recipes")}
    plain = recipes["libero-goal"]
    for mode in ("fp16", "int8", "int4", "auto"):
        assert recipes[mode].name == mode
        assert recipes[f"libero-goal-{mode}"].precision == recipes[mode].precision
        assert recipes[f"libero-goal-{mode}"].action == plain.action
    assert not plain.precision.reduced and not recipes["default"].precision.reduced
    assert {m: recipes[m].precision.layers
            for m in ("fp16", "int4", "auto")} == {m: m for m in ("fp16", "int4", "auto")}
    assert recipes["int8"].precision.automatic and recipes["int8"].precision.schemes == ("int8",)
    assert recipes["auto"].precision.automatic and recipes["auto"].precision.max_action_error == 0.05


def test_rules_are_read_in_order_and_printed(recipe):
    precision = recipe('layers = "int8"\n[[precision.rule]]\nlayers = "vision.*/**blocks.10"\nscheme = "fp32"\n'
                       '[[precision.rule]]\nlayers = "*"\nscheme = "int4"')
    assert precision.rule == (PrecisionRule("vision.*/**blocks.10", "fp32"), PrecisionRule("*", "int4"))
    assert dict(flat(asdict(precision)))["rule"] == "vision.*/**blocks.10 = fp32, * = int4"


def test_a_rule_may_leave_layers_to_the_optimiser_which_then_needs_a_budget(recipe):
    rule = '[[precision.rule]]\nlayers = "step/*"\nscheme = "auto"'
    with pytest.raises(ConfigError, match="max_action_error is missing"):
        recipe(rule)
    assert recipe(f"max_action_error = 0.1\n{rule}").automatic


@pytest.mark.parametrize("text,what,why", [
    ('base = "int8"', 'precision.base = "int8"', "known: fp16, fp32"),
    ('layers = "int9"', 'precision.layers = "int9"', 'did you mean "int8"?'),
    ('layers = "auto"', "precision.max_action_error is missing", "budget"),
    ("max_action_error = 0.0", "precision.max_action_error = 0.0", "positive"),
    ("max_action_error = nan", "precision.max_action_error = nan", "positive"),
    ("max_weight_mb = -1", "precision.max_weight_mb = -1.0", "positive"),
    ("max_latency_ms = inf", "precision.max_latency_ms = inf", "finite"),
    ('minimise = "time"', 'precision.minimise = "time"', "latency"),
    ("observations = 1", "precision.observations = 1", "at least two"),
    ('calibrator = "max"', 'precision.calibrator = "max"', 'did you mean "minmax"?'),
    ('calibrator = "mean"', 'precision.calibrator = "mean"', "percentile"),
    ("percentile = 101.0", "precision.percentile = 101.0", "at most 100"),
    ("smooth = 1.5", "precision.smooth = 1.5", "between 0"),
    ('rotate = "always"', 'precision.rotate = "always"', "auto"),
    ('rotate = "auto"', 'precision.rotate = "auto"', "no layer may have these"),
    ("rotate_seed = -1", "precision.rotate_seed = -1", "0 or more"),
    ('int4_method = "gpqt"', 'precision.int4_method = "gpqt"', 'did you mean "gptq"?'),
    ("block = 48", "precision.block = 48", "32, 64, 128"),
    ('[[precision.rule]]\nlayers = "*"\nscheme = "int2"', 'precision.rule.scheme = "int2"', "int"),
    ('[[precision.rule]]\nlayers = ""\nscheme = "int8"', 'precision.rule.layers = ""', "pattern is empty"),
    ('[[precision.rule]]\nlayer = "*"\nscheme = "int8"', 'unknown key "precision.rule.layer"', 'mean "layers"?'),
    ('[[precision.rule]]\nlayers = "*"', 'key "precision.rule.scheme" is missing', "no default"),
    ("rule = 3", '"precision.rule" has the wrong type', "a list"),
])
def test_nonsense_is_refused(recipe, text, what, why):
    with pytest.raises(ConfigError) as error:
        recipe(text)
    assert error.value.what == what and why in error.value.why


def test_what_a_recipe_may_say_is_what_a_method_may_be(recipe):
    """One list of each; both sides refuse what is not in it."""
    for key, field, known in (("calibrator", "calibrator", methods.CALIBRATORS),
                              ("int4_method", "int4", methods.ROUNDINGS)):
        for value in known:
            assert getattr(recipe(f'{key} = "{value}"'), key) == getattr(Method(**{field: value}), field) == value
        for made in (lambda key=key: recipe(f'{key} = "other"'), lambda field=field: Method(**{field: "other"})):
            with pytest.raises(ConfigError, match="other"):
                made()
    for key, field, good, bad in (("block", "block", methods.BLOCKS, (16, 48, 256)),
                                  ("percentile", "percentile", (50.1, 99.0, 100.0), (50.0, 100.1, 0.9999)),
                                  ("smooth", "alpha", (0.0, 0.5, 1.0), (-0.1, 1.1))):
        for value in good:
            assert getattr(recipe(f"{key} = {value}"), key) == getattr(Method(**{field: value}), field) == value
        for value in bad:
            for made in (lambda k=key, v=value: recipe(f"{k} = {v}"), lambda f=field, v=value: Method(**{f: v})):
                with pytest.raises(ConfigError):
                    made()
    assert quantise.CALIBRATORS is methods.CALIBRATORS


def test_every_calibrator_gives_a_range():
    seen = histogram.Histogram()
    seen.add(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    assert all(0 < seen.threshold(c) <= seen.peak for c in methods.CALIBRATORS)


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.parts = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64))
        self.out = torch.nn.Linear(64, 6)

    def forward(self, state):
        return {"action": self.out(self.parts(state))[:, None]}


@pytest.mark.parametrize("scheme,text", [
    *(("int8", f'calibrator = "{c}"\npercentile = {p}\nsmooth = {s}') for c in methods.CALIBRATORS
      for p, s in ((99.99, 0.0), (100.0, 1.0))),
    ("int8", 'rotate = "auto"\nrotate_seed = 7\nsmooth = 0.5'), ("int4", 'rotate = "auto"'),
    *(("int4", f'int4_method = "{m}"\nblock = {b}') for m in methods.ROUNDINGS for b in methods.BLOCKS)])
def test_every_value_that_a_recipe_accepts_builds(tmp_path, scheme, text):
    path = tmp_path / "r.toml"
    path.write_text(f'name = "r"\ndescription = ""\n[precision]\nlayers = "{scheme}"\nmax_action_error = 3.0\n{text}\n'
                    f'[[precision.rule]]\nlayers = "*"\nscheme = "{scheme}"\n', encoding="utf-8")
    state = {"state": torch.randn(1, 64, generator=torch.Generator().manual_seed(1))}
    policy = vc.Policy("p", Layers().eval(), {"state": vc.Source("observation")}, state)
    bundle = vc.build(policy, recipe=str(path), out=tmp_path / "p.vlab")
    assert {p.scheme for s in bundle.plan.stages for p in s.precisions} == {scheme}
    assert vc.verify(bundle.path).passed
