"""Runs with rounding errors drawn anew: small, repeatable, and only of stages that run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from tests.samples import policies
from vlacompile.compiler.staging.perturbed_runs import F32_ROUNDING, FACTORS, LAST_BITS, frame_values, perturbed_results
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.hardware.target import load_target
from vlacompile.phases.capture import capture
from vlacompile.phases.find_stages import stage
from vlacompile.phases.phase import silent
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.recipe.recipe import load_recipe
from vlart.verify.frames import Frame
from vlart.verify.tolerances import SIGMAS


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


NEAR_ZERO = {
    "sigmoid": (torch.sigmoid, torch.ops.aten.sigmoid.default), "silu": (F.silu, torch.ops.aten.silu.default),
    "elu": (F.elu, torch.ops.aten.elu.default), "gelu": (F.gelu, torch.ops.aten.gelu.default),
    "expm1": (torch.expm1, torch.ops.aten.expm1.default), "log1p": (torch.log1p, torch.ops.aten.log1p.default),
}


@pytest.mark.parametrize("name", NEAR_ZERO)
def test_errors_of_results_near_zero_are_those_of_an_engine(tmp_path, name):
    """ONNX Runtime's sigmoid(-17) is off by three times its value, and silu(-17) by 2e-6."""
    function, target = NEAR_ZERO[name]
    one_sided = torch.cat([torch.linspace(1e-6, 30, 4001), torch.logspace(-8, 0, 1001)])
    x = one_sided if name == "log1p" else torch.cat([one_sided, -one_sided])
    result = function(x)
    of_engine = (torch.from_numpy(_in_onnxruntime(tmp_path, function, x)).double() - function(x.double())).abs()

    graph = torch.fx.Graph()
    operand = graph.placeholder("x")
    node = graph.call_function(target, (operand,))
    moved = []
    for seed in range(20):
        perturb = perturbed_results(seed)
        assert perturb(operand, x) is None, "an input is what it is"
        moved.append(perturb(node, result).double() - result)
    rms = torch.stack(moved).pow(2).mean(0).sqrt()
    allowed = SIGMAS * rms
    assert bool((of_engine <= allowed).all()), f"at {float(x[(of_engine - allowed).argmax()])}"
    unit = x.abs() if name in ("silu", "gelu") else 1.0
    assert bool((rms <= 2 * (LAST_BITS * result.abs() + F32_ROUNDING * unit)).all())


def _in_onnxruntime(folder, function, x):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    program = torch.onnx.export(Module().eval(), (x,), dynamo=True, verbose=False)
    program.save(folder / "function.onnx")
    session = onnxruntime.InferenceSession(folder / "function.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


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
