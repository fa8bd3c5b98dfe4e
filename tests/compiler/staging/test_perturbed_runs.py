"""Runs with rounding errors drawn anew: small, repeatable, and only of stages that run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.samples import policies
from vlacompile.compiler.staging.perturbed_runs import FACTORS, LAST_BITS, frame_values, perturbed_results
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.capture import capture
from vlacompile.phases.find_stages import stage
from vlacompile.phases.phase import silent
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.recipe.recipe import load_recipe
from vlart.verify.frames import Frame


@pytest.fixture(scope="module")
def linear():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    return graph.call_function(torch.ops.aten.linear.default, (x, x))


def test_errors_are_of_the_size_of_rounding_and_those_of_a_seed_again(linear):
    result = torch.rand(3, FACTORS // 2, generator=torch.Generator().manual_seed(1)) + 1.0
    moved = [perturbed_results(seed)(linear, result) / result - 1 for seed in (0, 0, 1)]
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])
    assert float(moved[0].std()) == pytest.approx(LAST_BITS, rel=0.05) and abs(float(moved[0].mean())) < LAST_BITS / 50
    rows = torch.corrcoef(moved[0])
    assert float((rows - torch.eye(3)).abs().max()) < 0.01, "rows of a result are rounded independently"


def test_opposite_errors(linear):
    result = torch.full((1000,), 2.0)
    one, other = (perturbed_results(3, sign)(linear, result) - 2 for sign in (1.0, -1.0))
    assert float(one.abs().max()) > 0 and torch.allclose(one, -other, atol=3e-7)


def test_a_stage_whose_sources_stay_keeps_its_values():
    policy = policies.late_fusion()
    target = load_target("host")
    inputs = read_inputs(policy, "host", None, progress=silent)
    recipe = load_recipe(None, target)
    apart = replace(recipe, stages=replace(recipe.stages, min_flops=0))
    staged = stage(capture(inputs, progress=silent).program, target, apart).staged
    camera = next(s for s in staged.stages if s.sources == ("observation.images.base",))
    frames = [Frame("first", {n: t.numpy().copy() for n, t in policy.example_inputs.items()})]
    other = "observation.state"
    frames += [Frame("another changed", dict(frames[0].writes) | {other: frames[0].writes[other][..., ::-1].copy()})]
    for seed in (None, 0):
        first, second = frame_values(StageRunner(staged), frames, seed)
        assert all(np.shares_memory(first[p.value].numpy(), second[p.value].numpy()) for p in camera.outputs)
        changed = [p.value for s in staged.stages if other in s.sources for p in s.outputs]
        assert changed and not any(torch.equal(first[n], second[n]) for n in changed)
