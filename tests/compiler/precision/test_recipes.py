"""Recipes of reduced precision, end to end: built, replayed through libvlart, reported; and what must be refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from tests.samples.staging import verified
from vlacompile.cli.main import main
from vlacompile.compiler.precision.assign import set_precision as module
from vlacompile.compiler.precision.assign.set_precision import set_precision
from vlacompile.compiler.precision.fp16.convert import Fp16Limits
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.read_inputs import resolve
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.precision_recipe import PrecisionRecipe, PrecisionRule
from vlacompile.recipe.recipe import load_recipe
from vlart.bundle.directory import GOLDEN_FILE
from vlart.errors import BudgetError, CalibrationError, ConfigError, ParityError
from vlart.verify.frames import read_frames

SMALL = """
[[precision.rule]]
layers = "*"
scheme = "{}"
"""


def recipe(tmp_path, body: str, name: str = "r"):
    path = tmp_path / f"{name}.toml"
    path.write_text(f'name = "{name}"\ndescription = "test"\n[stages]\nmin_flops = 0\n{body}', encoding="utf-8")
    return str(path)


def staged_of(policy: Policy):
    wanted, where = resolve(load_recipe(None), policy), load_target("host")
    return verified(policy, where, wanted).staging.staged


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """{(policy, scheme): bundle}, every layer in the scheme, those that touch actions too."""
    found = {}
    for kind, make in (("late_fusion", policies.late_fusion), ("flow", policies.flow)):
        for scheme in ("fp32", "int8", "int4", "fp16"):
            where = tmp_path_factory.mktemp(f"{kind}-{scheme}")
            rule = SMALL.format(scheme) if scheme != "int4" else SMALL.format("int4")
            base = 'base = "fp16"\nlayers = "fp16"\n' if scheme == "fp16" else ""
            rule = "" if scheme in ("fp32", "fp16") else rule
            found[kind, scheme] = vc.build(make(),
                                           recipe=recipe(where, f"[precision]\nmax_action_error = 3.0\n{base}{rule}"),
                                           out=where / "p.vlab")
    return found


@pytest.mark.parametrize("kind", ["late_fusion", "flow"])
@pytest.mark.parametrize("scheme", ["int8", "int4", "fp16"])
def test_a_precision_is_built_replayed_and_measured(bundles, kind, scheme):
    bundle, plain = bundles[kind, scheme], bundles[kind, "fp32"]
    report = vc.verify(bundle.path)
    levels = {v.level: v for v in report.values if v.value == "action"}
    assert report.passed and set(levels) == {"chunk", "policy"}
    assert 1e-6 < levels["policy"].worst.rel_l2 < 0.3
    weights = [sum(w.type.bytes for w in b.plan.weights) for b in (bundle, plain)]
    assert weights[0] < {"int8": 0.55, "int4": 0.6, "fp16": 0.65}[scheme] * weights[1]
    chosen = {p.scheme for s in bundle.plan.stages for p in s.precisions}
    assert scheme in chosen and bundle.plan.check() is None
    assert any("action error" in n for n in bundle.manifest["provenance"]["notes"])


def test_full_precision_has_no_references(bundles):
    bundle = bundles["flow", "fp32"]
    assert {v.level for v in vc.verify(bundle.path).values} == {"stage", "chunk"}
    assert not any(f.references for f in read_frames(bundle.path / GOLDEN_FILE))


@pytest.mark.parametrize("spoil", ["scales", "axis", "numbers"])
def test_wrong_scales_are_not_replayed_away(tmp_path, monkeypatch, spoil):
    """What is emitted is not what was recorded: the replay through libvlart must say so."""
    from vlacompile.phases import emit as phase

    honest = phase.emit_onnx

    def emit(stage, *how):
        constants = dict(stage.constants)
        for name, tensor in stage.constants.items():
            if spoil == "scales" and name.endswith("__scale"):
                constants[name] = tensor.flip(0)
            if spoil == "axis" and name.endswith("__int8") and tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]:
                constants[name] = tensor.T.contiguous()
            if spoil == "numbers" and name.endswith("__int8"):
                constants[name] = tensor.roll(1, 0)
        return honest(replace(stage, constants=constants), *how)

    monkeypatch.setattr(phase, "emit_onnx", emit)
    with pytest.raises(ParityError):
        vc.build(policies.flow(), recipe=recipe(tmp_path, "[precision]\n" + SMALL.format("int8")),
                 out=tmp_path / "p.vlab")
    assert not (tmp_path / "p.vlab").exists()


def test_both_engines_are_simulated():
    policy = policies.flow()
    staged = staged_of(policy)
    found = set_precision(staged, policy, PrecisionRecipe(layers="int8"), load_target("host"), lambda phase: None)
    assert set(found.simulated) == {"onnxruntime", "tensorrt"} and all(0 < e < 1 for e in found.simulated.values())
    inputs = policy.example_inputs
    a, b = (StageRunner(s).run(inputs)["action"] for s in (found.staged, staged))
    assert 0 < float((a - b).abs().max()) < 0.5


def test_smoothing_is_kept_only_where_it_helps():
    policy = policies.flow()
    staged = staged_of(policy)
    smooth, plain = (set_precision(staged, policy, PrecisionRecipe(layers="int8", **options), load_target("host"),
                                   lambda phase: None)
                     for options in ({"smooth": 0.5}, {}))
    rescaled = [[n for n in found.notes if "channels rescaled" in n] for found in (smooth, plain)]
    assert rescaled[0] and not rescaled[1]
    assert smooth.simulated["onnxruntime"] < plain.simulated["onnxruntime"]


def test_without_a_budget_fp16_may_cost_what_the_integer_layers_do(monkeypatch):
    policy, limits = policies.flow(), {}
    staged = staged_of(policy)
    honest = module.convert_to_fp16

    def watch(lowered, observations, given, *rest):
        limits[wanted.layers] = given.action
        return honest(lowered, observations, given, *rest)

    monkeypatch.setattr(module, "convert_to_fp16", watch)
    every = (PrecisionRule("*", "int4"),)  # those that touch actions too
    for wanted in (PrecisionRecipe(base="fp16", layers="int4", rule=every), PrecisionRecipe(base="fp16", layers="fp16"),
                   PrecisionRecipe(base="fp16", layers="int8", max_action_error=3.0)):
        set_precision(staged, policy, wanted, load_target("host"), lambda phase: None)
    alone = set_precision(staged, policy, PrecisionRecipe(layers="int4", rule=every), load_target("host"),
                          lambda phase: None)
    assert limits["int4"] == pytest.approx(alone.error, rel=1e-3) and limits["int4"] > 2 * Fp16Limits.action
    assert limits["fp16"] == Fp16Limits.action and limits["int8"] == 3.0


def test_too_few_observations(tmp_path):
    policy = policies.flow()
    one = replace(policy, calibration=(policy.example_inputs,))
    with pytest.raises(CalibrationError, match="different calibration observations"):
        vc.build(one, recipe=recipe(tmp_path, '[precision]\nlayers = "int8"\n'), out=tmp_path / "p.vlab")


def test_an_observation_with_nan(tmp_path):
    policy = policies.flow()
    bad = dict(policy.example_inputs) | {"state": torch.full_like(policy.example_inputs["state"], float("nan"))}
    with pytest.raises(CalibrationError, match="NaN"):
        vc.build(replace(policy, calibration=(policy.example_inputs, bad)),
                 recipe=recipe(tmp_path, '[precision]\nlayers = "int8"\n'), out=tmp_path / "p.vlab")


def test_a_static_input_is_no_observation(tmp_path):
    """It is a constant of the program by then; observations that are generated, or recorded with it, are none the
    worse."""
    made = policies.late_fusion()
    state = next(n for n, x in made.example_inputs.items() if x.ndim == 2 and x.is_floating_point())
    fixed = replace(made, sources={**made.sources, state: Source("static")})
    built = vc.build(fixed, recipe=recipe(tmp_path, "[precision]\nmax_action_error = 3.0\n" + SMALL.format("int8")),
                     out=tmp_path / "p.vlab")
    assert state not in {built.plan.values[s.value].name for s in built.plan.sources}
    assert "int8" in {p.scheme for s in built.plan.stages for p in s.precisions}


class Hidden(torch.nn.Module):
    """A mask is made of the instruction, in a stage of its own, and read where frames come in."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = torch.nn.Linear(16, 16), torch.nn.Linear(16, 14)

    def forward(self, keep, x) -> dict[str, torch.Tensor]:
        added = torch.where(keep, 0.0, torch.finfo(torch.float32).min)[:, None]
        x = self.mix(x)
        seen = torch.softmax(torch.matmul(x, x.transpose(1, 2)) + added, -1) @ x
        return {"action": torch.tanh(self.head(seen.mean(1))).view(1, 2, 7)}


def test_masks_between_stages_are_compared_by_what_they_hide(tmp_path):
    """-3.4e38 ends at -16384 in fp16: no difference, and none that a tolerance could be made of."""
    torch.manual_seed(0)
    made = Policy("hidden", Hidden().eval(), {"keep": Source("task"), "x": Source("observation")},
                  {"keep": torch.arange(8)[None] < 5, "x": torch.randn(1, 8, 16)})
    body = '[precision]\nmax_action_error = 3.0\nbase = "fp16"\nlayers = "fp16"\n'
    built = vc.build(made, recipe=recipe(tmp_path, body), out=tmp_path / "p.vlab", target="orin-nano-8gb")
    limits = {n: e.limit for f in read_frames(built.path / GOLDEN_FILE) for n, e in f.expects.items()
              if e.array.min() < -1e3}
    assert limits and all(x.max_abs < 10 and x.rel_l2 < 1e-2 for x in limits.values())


def test_a_budget_that_cannot_be_met_says_what_can(tmp_path):
    body = "[precision]\nmax_action_error = 1e-6\n" + SMALL.format("int8")
    with pytest.raises(BudgetError) as caught:
        vc.build(policies.flow(), recipe=recipe(tmp_path, body), out=tmp_path / "p.vlab")
    assert caught.value.reachable["max_action_error"] > 1e-6 and "reachable" in str(caught.value)


def test_a_rule_for_nothing(tmp_path):
    body = '[precision]\n[[precision.rule]]\nlayers = "vison.*"\nscheme = "int8"\n'
    with pytest.raises(ConfigError, match="vison"):
        vc.build(policies.flow(), recipe=recipe(tmp_path, body), out=tmp_path / "p.vlab")


def test_two_builds_are_equal(bundles, tmp_path):
    again = vc.build(policies.flow(),
                     recipe=recipe(tmp_path, "[precision]\nmax_action_error = 3.0\n" + SMALL.format("int8")),
                     out=tmp_path / "p.vlab")
    first = bundles["flow", "int8"]
    for file in ("plan.txt", "stages/weights.bin"):
        a, b = ((x.path / file).read_bytes() for x in (again, first))
        assert a == b, file


def test_verify_prints_both_errors(bundles, capsys):
    assert main(["verify", str(bundles["flow", "int8"].path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["values"]
    assert {r["level"] for r in rows if r["value"] == "action"} == {"chunk", "policy"}


def test_a_convolutional_policy_in_int8_is_the_engines():
    """Everything but norms in integers: libvlart gives what the compiler computed, nearly to the bit."""
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = torch.nn.Conv2d(3, 16, 3, 2,
                                                     1), torch.nn.Conv2d(16, 16, 3, 1, 1), torch.nn.Conv2d(16, 32, 4, 4)
            self.out = torch.nn.Linear(32 * 4, 70)

        def forward(self, image):
            x = torch.relu(self.a(image.permute(0, 3, 1, 2).float() / 255))
            x = torch.relu(self.b(x) + x)
            return {"action": self.out(torch.relu(self.c(x)).flatten(1)).reshape(1, 10, 7)}

    torch.manual_seed(0)
    images = [torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8) for _ in range(8)]
    policy = Policy("cnn", Net().eval().requires_grad_(False), {"image": Source("observation")}, {"image": images[0]},
                    calibration=tuple({"image": i} for i in images))
    staged = staged_of(policy)
    found = set_precision(staged, policy, PrecisionRecipe(layers="int8"), load_target("host"), lambda phase: None)
    assert {p.scheme for s in found.staged.stages for p in s.precisions} == {"fp32", "int8"}
    want = np.concatenate([StageRunner(staged).run({"image": i})["action"].numpy() for i in images])
    got = np.concatenate([StageRunner(found.staged).run({"image": i})["action"].numpy() for i in images])
    assert 0 < np.linalg.norm(got - want) / np.linalg.norm(want) < 0.05
