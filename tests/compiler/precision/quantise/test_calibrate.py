"""What layers are calibrated with: the calls of a stage, bad observations, layers and methods that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.compiler.precision.quantise.quantised_stages import as_stage, layer_io
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.history import newest_of
from vlacompile.compiler.precision.quantise.calibrate import check_observations, collect, record_calls
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, quantise_stage
from vlacompile.compiler.staging.run_stages import StageRunner, stage_module
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.sample_inputs import golden_inputs
from vlacompile.recipe.recipe import load_recipe
from vlart.errors import CalibrationError, ConfigError


def test_statistics_are_exact_and_rows_are_rows(convolutions):
    graph, calls = convolutions
    name = next(x.node for x in layers_of(graph) if x.kind == "linear")
    x = torch.cat([a[0] for a, _ in layer_io(graph, calls)[name]]).flatten(0, -2)
    found = collect(graph, calls, rows=50).inputs[name]
    assert found.count == len(x) and found.rows.shape == (50, 6)
    torch.testing.assert_close(found.mean, x.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.mean_square, x.square().mean(0), atol=1e-6, rtol=1e-5)
    assert torch.equal(found.peak, x.abs().amax(0))
    assert (found.magnitudes.low, found.magnitudes.high) == (float(x.min()), float(x.max()))
    places = [int((x == row).all(1).nonzero()[0]) for row in found.rows]
    assert places == sorted(set(places))
    again = collect(graph, calls, rows=50).inputs[name]
    assert torch.equal(found.rows, again.rows)
    assert not torch.equal(found.rows, collect(graph, calls, rows=50, seed=1).inputs[name].rows)
    assert torch.equal(collect(graph, calls).inputs[name].rows, x)  # all, where there is room
    assert torch.equal(collect(graph, [*calls, calls[0]]).inputs[name].rows, x)  # a repeated call is nothing new


@pytest.fixture(scope="module", params=["flow", "late_fusion", "two_cameras", "remember"])
def staged(request):
    policy = getattr(policies, request.param)()
    found = stage(capture(policy, False), load_target("host"), load_recipe(None), policy).staged
    newest = newest_of(policy.sources, policy.example_inputs)
    return found, [x for _, x in golden_inputs(dict(policy.sources), newest, 6, 0)]


def test_calls_are_what_the_stages_are_run_with(staged):
    found, observations = staged
    calls = record_calls(found, observations)
    for s in found.stages:
        assert len(calls[s.name]) == len(observations) * s.iterations
        assert all(len(args) == len(s.inputs) for args in calls[s.name])
    last = StageRunner(found).run(observations[-1])
    for s in found.stages:
        with torch.no_grad():
            outputs = stage_module(s)(*calls[s.name][-1])
        assert all(torch.equal(t, last[p.value]) for p, t in zip(s.outputs, outputs, strict=True))


@pytest.mark.parametrize("method", [Method(), Method("mse", int4="awq", block=32),
                                    Method("entropy", int4="gptq", block=128)], ids=lambda m: m.int4)
def test_every_layer_of_a_stage(staged, method):
    found, observations = staged
    calls, told = record_calls(found, observations), []
    for s in found.stages:
        samples = collect(s, calls[s.name])
        for scheme in ("int8", "int4"):
            schemes = {x.node: scheme for x in layers_of(s) if scheme == "int8" or x.kind != "conv"}
            done = quantise_stage(s, samples, schemes, method, told.append)
            assert set(done) == set(schemes)
            for x in layers_of(s):
                if x.node not in done:
                    continue
                q, weight = done[x.node], s.constants[x.weight]
                assert q.q.shape == weight.shape and q.q.dtype == torch.int8 and q.scheme == scheme
                assert (q.dequantised() - weight).norm() < 0.35 * weight.norm()
                if x.kind != "embedding":
                    m = samples.inputs[x.node].magnitudes
                    assert m.low <= q.low <= q.high <= m.high
                    assert q.bias.shape == weight.shape[:1]
            again = quantise_stage(s, collect(s, calls[s.name]), schemes, method)
            for name, q in done.items():
                assert torch.equal(q.q, again[name].q) and torch.equal(q.scale, again[name].scale)
                assert (q.low, q.high) == (again[name].low, again[name].high)
    assert told


@pytest.fixture(scope="module")
def flow():
    policy = policies.flow()
    return policy, stage(capture(policy, False), load_target("host"), load_recipe(None), policy).staged


@pytest.mark.parametrize(("change", "says"), [
    (lambda x: {**x, "image": x["image"][:, :16]}, r'"image" does not fit.*u8\[1, 16, 32, 3\].*u8\[1, 32, 32, 3\]'),
    (lambda x: {**x, "state": x["state"].double()}, r'"state" does not fit.*f64\[1, 9\].*f32\[1, 9\]'),
    (lambda x: {**x, "state": torch.full((1, 9), float("nan"))}, r'"state" holds NaN or infinity.*9 of 9'),
    (lambda x: {**x, "noise": torch.full((1, 10, 7), float("inf"))}, r'"noise" holds NaN or infinity'),
    (lambda x: {k: v for k, v in x.items() if k != "tokens"}, r'"tokens" does not fit.*missing'),
    (lambda x: {**x, "sate": x["state"]}, r'"sate" is no input.*did you mean "state"'),
    (lambda x: {**x, "state": [0.0] * 9}, r'"state" does not fit.*a list'),
])
def test_observations_that_do_not_fit(flow, change, says):
    policy, found = flow
    good = [x for _, x in golden_inputs(dict(policy.sources), policy.example_inputs, 4, 0)]
    check_observations(found, good, 4)
    with pytest.raises(CalibrationError, match=f"(?s){says}") as error:
        record_calls(found, [*good[:2], change(good[2])])
    assert "observation 2" in error.value.where and error.value.fix and error.value.exit_code == 11


def test_too_few_observations_and_the_same_one_often(flow):
    policy, found = flow
    noise = [{**policy.example_inputs, "noise": torch.randn(1, 10, 7)} for _ in range(5)]
    for observations in ([], [policy.example_inputs], noise):
        with pytest.raises(CalibrationError, match="(0|1) different calibration observations"):
            record_calls(found, observations)


def test_layers_that_compute_nan_name_the_place():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(torch.log(x))

    graph = as_stage(Root(), x=torch.ones(1, 4))
    with pytest.raises(CalibrationError, match=r"(?s)reads NaN or infinity.*%log"):
        collect(graph, [(torch.ones(1, 4),), (-torch.ones(1, 4),)])


@pytest.mark.parametrize(("schemes", "says"), [
    ({"linear_9": "int8"}, "not a layer"), ({"linear": "int3"}, "not a scheme"),
    ({"conv2d": "int4"}, "a convolution in int4")])
def test_schemes_that_do_not_fit(convolutions, schemes, says):
    graph, calls = convolutions
    with pytest.raises(ConfigError, match=says):
        quantise_stage(graph, collect(graph, calls), schemes, Method())
    with pytest.raises(ConfigError, match="no samples"):
        quantise_stage(graph, collect(graph, calls, layers=["conv2d"]), {"linear": "int8"}, Method())


@pytest.mark.parametrize("options", [{"calibrator": "max"}, {"int4": "nf4"}, {"block": 48}, {"percentile": 0.9999},
                                     {"alpha": 2.0}])
def test_methods_that_are_none(options):
    with pytest.raises(ConfigError):
        Method(**options)
