"""Fewer evaluations of a denoising loop, within a budget in action space; one engine per step, or one for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.compiler.staging.test_roll_loop import HOST, SAMPLERS, denoising, spaced
from tests.samples import policies
from tests.samples.staging import verified
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.compiler.staging.choose_solver import action_error, calibration
from vlacompile.compiler.staging.resample_loop import coefficients, kept_iterations
from vlacompile.frontends import samplers
from vlacompile.recipe.recipe import LoopRecipe, Recipe, load_recipe


def chosen(policy: vc.Policy, budget: float, form: str = "steps"):
    recipe = Recipe("budget", "", loop=LoopRecipe(max_action_error=budget, form=form))
    staging = verified(policy, HOST, recipe).staging
    return staging, next(s.sampling for s in staging.staged.stages if s.sampling is not None)


def test_the_error_is_of_the_worst_dimension_in_its_own_spread():
    want = [torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[2.0, 200.0]]])]
    off = [w + torch.tensor([0.1, 0.1]) for w in want]
    assert action_error(off, want) == pytest.approx(0.1 / np.std([0.0, 2.0], ddof=1), rel=1e-5)
    still = [torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)]
    assert action_error(still, still) == 0.0
    assert action_error([s + 0.1 for s in still], still) == float("inf")
    assert action_error([s + float("nan") for s in want], want) == float("inf")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 2048.0])
def test_a_constant_dimension_is_held_to_its_magnitude(scale):
    """In ticks and in metres alike; beside a wide dimension, and small motion around an offset is motion."""
    wide = torch.randn(8, 5, 1, generator=torch.Generator().manual_seed(0)) * 1000
    still = torch.full_like(wide, scale)
    moving = still + wide * 1e-6 * scale
    want = list(torch.cat([wide, still, moving], -1).double().split(1))
    errors = ActionScale.of(want).errors([w + torch.tensor([0, 1e-3 * scale, 1e-3 * scale]) for w in want], want)
    assert errors[0] == 0 and errors[1] == pytest.approx(1e-2) and 0.5 < errors[2] < 2


@pytest.mark.parametrize(("written", "evaluations", "kept"),
                         [(10, 5, [0, 2, 4, 6, 8]), (10, 3, [0, 3, 6]), (4, 1, [0])])
def test_the_first_iteration_and_others_evenly(written, evaluations, kept):
    assert kept_iterations(written, evaluations) == kept


def test_the_multistep_solver_is_of_second_order():
    """On x' = x it errs four times less with half the step, Euler's method two times."""
    def end(solver: str, n: int) -> float:
        x, before = 1.0, 0.0
        for now, past in coefficients((1 / n,) * n, list(range(n)), solver):
            x, before = x + now * x + past * before, x
        return x - np.e

    assert end("euler", 40) / end("euler", 80) == pytest.approx(2, rel=0.05)
    assert end("adams-bashforth-2", 40) / end("adams-bashforth-2", 80) == pytest.approx(4, rel=0.1)
    # unequal steps that together make the same way
    steps = tuple(0.005 if k % 2 else 0.015 for k in range(100))
    x, before = 1.0, 0.0
    for now, past in coefficients(steps, list(range(100)), "adams-bashforth-2"):
        x, before = x + now * x + past * before, x
    assert x == pytest.approx(np.e, rel=3e-4)


def test_a_budget_buys_evaluations_and_nothing_buys_none():
    policy = denoising(SAMPLERS["flow-towards-zero"])
    _, exact = chosen(policy, 0.0)
    assert (exact.solver, exact.iterations, exact.written, exact.error) == ("as-written", 10, 10, 0.0)
    found = [chosen(policy, budget)[1] for budget in (0.002, 0.02, 0.3)]
    counts = [s.iterations for s in found]
    assert counts == sorted(counts, reverse=True) and counts[0] < 10 and counts[-1] == 1
    assert all(0 < s.error <= s.budget for s in found)
    assert any(s.solver == "adams-bashforth-2" for s in found)


def test_the_error_in_the_plan_is_that_of_the_bundle(tmp_path):
    """What libvlart computes, against the policy as written, on observations that the choice never saw."""
    policy = denoising(SAMPLERS["flow-towards-one"])
    recipe = tmp_path / "budget.toml"
    recipe.write_text('name = "budget"\ndescription = "half the evaluations"\n[loop]\nmax_action_error = 0.05\n'
                      'observations = 32\nform = "steps"\n', encoding="utf-8")
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "a.vlab")
    sampling = next(s.sampling for s in bundle.plan.stages if s.sampling is not None)
    assert sampling.iterations < sampling.written == 4 and 0 < sampling.error <= 0.05
    fresh = replace(policy, example_inputs={n: t.flip(-1) for n, t in policy.example_inputs.items()})
    got, want = [], []
    with vc.Session(bundle.path) as session:
        for inputs in calibration(fresh, LoopRecipe(observations=32)):
            for name, tensor in inputs.items():
                session.write(name, tensor.numpy())
            session.step()
            got.append(torch.from_numpy(session.read("action").copy()))
            want.append(policy.infer(**inputs)["action"])
    measured = action_error(got, want)
    assert sampling.error / 4 < measured < sampling.error * 4


def with_solvers(policy: vc.Policy) -> vc.Policy:
    """A DDIM policy that brings DPM-Solver++ with it."""
    others = {"dpm-solver++": lambda n: denoising(spaced(samplers.dpm_solver, n)),
              "ddim": lambda n: denoising(spaced(samplers.ddim, n))}
    return replace(policy, solvers=others)


def test_a_loop_of_another_kind_is_replaced_by_a_solver_of_the_policy():
    policy = with_solvers(denoising(SAMPLERS["ddim-10"]))
    staging, sampling = chosen(policy, 0.3)
    assert sampling.solver in policy.solvers and sampling.iterations < 10 and 0 < sampling.error <= 0.3
    assert staging.written is not None
    assert max(s.iterations for s in staging.staged.stages) == sampling.iterations


def test_without_a_solver_it_stays_as_written():
    staging, sampling = chosen(denoising(SAMPLERS["ddim-10"]), 0.3)
    assert sampling.iterations == 10 and sampling.solver == "as-written"
    assert any("the policy brings no other solver" in note for note in staging.notes)


def test_a_step_size_that_depends_on_an_input_is_no_flow():
    def observe(state, noise):
        x = noise
        for _ in range(4):
            x = x + torch.tanh(x + state[:, None]) * state.mean()
        return {"action": x}

    policy = vc.Policy("speed", observe, {"state": vc.Source("observation"), "noise": vc.Source("step")},
                       {"state": torch.randn(1, 4), "noise": torch.randn(1, 3, 4)})
    staging, sampling = chosen(policy, 0.5)
    assert sampling.solver == "as-written" and any("depends on an input" in note for note in staging.notes)


@pytest.mark.parametrize("form", ["steps", "fused"])
def test_both_forms_are_the_same_function(form, tmp_path):
    policy = policies.flow(5)
    recipe = tmp_path / f"{form}.toml"
    recipe.write_text(f'name = "{form}"\ndescription = "one form"\n[loop]\nform = "{form}"\n', encoding="utf-8")
    bundle = vc.build(policy, recipe=str(recipe), out=tmp_path / "a.vlab")
    step = next(s for s in bundle.plan.stages if s.name == "step")
    assert (step.iterations, step.sampling.form, step.sampling.iterations) == (5 if form == "steps" else 1, form, 5)
    inputs = {n: t.flip(-1).contiguous() if t.is_floating_point() else t for n, t in policy.example_inputs.items()}
    with vc.Session(bundle.path) as session, torch.no_grad():
        for name, tensor in inputs.items():
            session.write(name, tensor.numpy())
        session.step()
        assert np.abs(session.read("action") - policy.infer(**inputs)["action"].numpy()).max() < 5e-6


def test_the_launch_cost_decides_the_form():
    """A loop whose launches cost as much as its work is fused; one with 200 MB of weights is not."""
    small = chosen(policies.flow(4), 0.0, "auto")[1]
    assert small.form == "fused"
    slow = replace(HOST, launch=replace(HOST.launch, overhead_us=0.01))
    recipe = load_recipe(None)
    staging = verified(policies.flow(4), slow, recipe).staging
    assert next(s.sampling for s in staging.staged.stages if s.sampling is not None).form == "steps"


def test_calibration_observations_must_fit():
    policy = policies.flow()
    with pytest.raises(vc.VlaError, match='calibration observation 0 does not fit: "state"'):
        replace(policy, calibration=({**policy.example_inputs, "state": torch.randn(1, 8)},))
    assert len(calibration(replace(policy, calibration=(policy.example_inputs,)), LoopRecipe())) == 1


def test_noise_is_drawn_in_its_own_dtype():
    inputs = {"state": torch.randn(1, 4).half(), "noise": torch.randn(1, 2, 4).half()}
    sources = {"state": vc.Source("observation"), "noise": vc.Source("step")}
    policy = vc.Policy("half", lambda state, noise: {"action": (noise + state).float()}, sources, inputs)
    for seen in calibration(policy, LoopRecipe()):
        assert {n: t.dtype for n, t in seen.items()} == dict.fromkeys(inputs, torch.float16)


@pytest.mark.parametrize(("setting", "message"), [
    ("max_action_error = -0.1", "max_action_error"), ('form = "fast"', "loop.form"),
    ("observations = 1", "observations")])
def test_a_recipe_that_asks_for_nonsense_is_refused(setting, message, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(f'name = "r"\ndescription = ""\n[loop]\n{setting}\n', encoding="utf-8")
    with pytest.raises(vc.VlaError, match=message):
        load_recipe(str(path))


def test_a_shortened_trace_is_shortened_for_the_solvers_too():
    policy = with_solvers(denoising(SAMPLERS["ddim-10"]))
    assert capture(policy.solvers["ddim"](8)).iterations == {0: 8}
