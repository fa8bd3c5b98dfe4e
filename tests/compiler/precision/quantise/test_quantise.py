"""Layers as INT8 and INT4: rounding against a float64 reference, ranges, GPTQ, bias correction, bad observations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.precision.quantise.quantised_stages import draw, layer_io
from vlacompile.compiler.precision.quantise.blocks import SHRINKS, block_scales, round_blocks, searched_scales
from vlacompile.compiler.precision.quantise.calibrate import collect
from vlacompile.compiler.precision.quantise.gptq import gptq, spread_of
from vlacompile.compiler.precision.quantise.histogram import BINS, LEVELS, Histogram
from vlacompile.compiler.precision.quantise.layers import QuantisedLayer, dequantise, layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, mean_output, quantise_stage, round_rows, row_scales


@st.composite
def matrices(draw_from, columns=st.integers(1, 200)):
    n, k = draw_from(st.integers(1, 6)), draw_from(columns)
    w = torch.randn(n, k, generator=draw(draw_from(st.integers(0, 2**31))))
    w *= 10.0 ** draw_from(st.integers(-30, 30))
    w *= torch.logspace(0, draw_from(st.integers(0, 3)), n)[:, None]  # rows of different size
    if draw_from(st.booleans()):
        w[draw_from(st.integers(0, n - 1))] = 0
    return w


def rounded_well(weight: torch.Tensor, layer: QuantisedLayer, lowest: int, highest: int) -> bool:
    """Every number is within half a step, of the scale of its own row or block, of what is stored for it."""
    w, q, scale = (t.numpy().astype(np.float64) for t in (weight, layer.q, layer.scale))
    rows, columns = np.indices(w.shape)[:2]
    own = scale[rows] if layer.block == 0 else scale[rows, columns // layer.block]
    in_range = bool(((q >= lowest) & (q <= highest)).all())
    return in_range and bool((np.abs(w - q * own) <= own * (0.5 + 1e-5)).all())


@given(matrices())
def test_int8_rows_are_within_half_a_step(w):
    scale = row_scales(w)
    layer = QuantisedLayer("int8", round_rows(w, scale), scale)
    assert rounded_well(w, layer, -127, 127)
    np.testing.assert_array_equal(layer.dequantised().numpy(),
                                  (layer.q.numpy().astype(np.float64) * scale.numpy()[:, None]).astype(np.float32))
    again = layer.dequantised()
    np.testing.assert_array_equal(round_rows(again, row_scales(again)), layer.q)  # idempotent
    assert (layer.q.abs().amax(1)[w.abs().amax(1) > 1e-30] == 127).all()  # every row uses its range


@given(matrices(), st.sampled_from([32, 64, 128]))
def test_int4_blocks_are_within_half_a_step_tails_included(w, block):
    scale = block_scales(w, block)
    layer = QuantisedLayer("int4", round_blocks(w, scale, block), scale, block)
    assert scale.shape == (w.shape[0], -(-w.shape[1] // block)) and (scale > 0).all()
    assert rounded_well(w, layer, -8, 7)
    np.testing.assert_array_equal(round_blocks(layer.dequantised(), scale, block), layer.q)


def test_a_block_of_zeros_adds_nothing_in_an_engine():
    """Engines sum digits of 0..15 and take the offset off afterwards: what is left of it grows with the scale."""
    w = torch.randn(4, 64) * torch.tensor([0.0, 1.0]).repeat_interleave(32)
    scale = block_scales(w, 32)
    assert bool((scale[:, 0] < 1e-30).all()) and bool((scale[:, 1] > 1e-3).all())
    assert not round_blocks(w, scale, 32)[:, :32].any()


@given(matrices(st.integers(65, 200)), st.sampled_from(["rows swapped", "blocks shifted", "scale too small", "offset"]))
def test_the_same_checks_fail_for_wrong_layers(w, wrong):
    w = w / w.abs().amax().clamp(min=1e-30) + torch.linspace(0.2, 2, w.shape[1])  # blocks and rows differ, none is zero
    w = torch.cat([w, w * 3])
    scale8, scale4 = row_scales(w), block_scales(w, 64)
    good8 = QuantisedLayer("int8", round_rows(w, scale8), scale8)
    good4 = QuantisedLayer("int4", round_blocks(w, scale4, 64), scale4, 64)
    assert rounded_well(w, good8, -127, 127) and rounded_well(w, good4, -8, 7)
    bad8, bad4 = {
        "rows swapped": (replace(good8, scale=scale8.flip(0)), replace(good4, scale=scale4.flip(0))),
        "blocks shifted": (replace(good8, scale=scale8 * 3), replace(good4, scale=scale4.roll(1, 1))),
        "scale too small": (replace(good8, scale=scale8 / 2), replace(good4, scale=scale4 / 2)),
        "offset": (replace(good8, q=good8.q + 1), replace(good4, q=good4.q + 8)),  # a zero point left out
    }[wrong]
    assert not rounded_well(w, bad8, -127, 127) and not rounded_well(w, bad4, -8, 7)


def test_a_scale_per_column_is_another_layer():
    """The negative control of the axis: it has the right shape where the weight is square."""
    w = torch.randn(64, 64, generator=draw(0)) * torch.logspace(0, 2, 64)[:, None]
    scale = row_scales(w.T.contiguous())
    assert not rounded_well(w, QuantisedLayer("int8", round_rows(w, scale), scale), -127, 127)


def test_sixteen_values_err_less_than_fifteen():
    """Blocks whose furthest number is negative get a scale of an eighth of it."""
    w = torch.randn(256, 1024, generator=draw(0))
    symmetric = w.unflatten(1, (-1, 64)).abs().amax(-1) / 7
    scale = block_scales(w, 64)
    error = lambda s: float((dequantise(round_blocks(w, s, 64), s, 64) - w).square().mean())
    assert (scale <= symmetric * (1 + 1e-6)).all()
    assert error(scale) < 0.95 * error(symmetric)


@given(matrices(st.integers(1, 150)), st.sampled_from([32, 64]))
def test_searched_scales_never_err_more(w, block):
    importance = torch.rand(w.shape[1], generator=draw(1)) + 0.1
    w = w / w.abs().amax().clamp(min=1e-30)
    error = lambda s: ((dequantise(round_blocks(w, s, block), s, block) - w).square() * importance).sum()
    assert error(searched_scales(w, block, importance)) <= error(block_scales(w, block)) * (1 + 1e-5)
    assert SHRINKS[0] == 1


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60), st.integers(1, 10),
       st.integers(0, 9))
def test_a_histogram_is_the_same_however_the_values_come(values, pieces, seed):
    x = torch.tensor(values, dtype=torch.float32)
    whole, parts = Histogram(), Histogram()
    whole.add(x)
    for piece in x[torch.randperm(len(x), generator=draw(seed))].tensor_split(pieces):
        if len(piece):
            parts.add(piece)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert (whole.end, whole.low, whole.high) == (parts.end, parts.low, parts.high)
    assert whole.counts.sum() == len(x) and (whole.low, whole.high) == (float(x.min()), float(x.max()))


def clipped_error(x: torch.Tensor, peak: float) -> float:
    scale = peak / LEVELS
    return float(((x / scale).round().clamp(-LEVELS, LEVELS) * scale - x).double().square().mean())


DISTRIBUTIONS = {
    "normal": lambda g: torch.randn(100_000, generator=g),
    "heavy tails": lambda g: torch.distributions.StudentT(3.0).sample((100_000,)),
    "relu": lambda g: torch.randn(100_000, generator=g).relu(),
    "few far out": lambda g: torch.cat([torch.randn(100_000, generator=g), torch.full((3,), 40.0)]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_mse_range_is_the_best_there_is(name):
    torch.manual_seed(0)
    x = DISTRIBUTIONS[name](draw(0))
    h = Histogram()
    h.add(x)
    best = min(clipped_error(x, h.peak * i / 400) for i in range(1, 401))
    assert clipped_error(x, h.threshold("mse")) <= 1.02 * best
    assert h.threshold("minmax") == float(x.abs().max())


@pytest.mark.parametrize("calibrator", ["percentile", "entropy", "mse"])
def test_ranges_that_clip_outliers_err_less_at_the_output(calibrator):
    """A layer that reads one number far out, of little weight in its output."""
    g = draw(0)
    x = torch.randn(8000, 64, generator=g)
    x[77, 0] = 60.0
    w = torch.randn(32, 64, generator=g)
    w[:, 0] *= 0.01
    h = Histogram()
    h.add(x)

    def error(peak: float) -> float:
        scale = peak / LEVELS
        return float((((x / scale).round().clamp(-LEVELS, LEVELS) * scale - x) @ w.T).square().mean())

    options = {"percentile": 99.9} if calibrator == "percentile" else {}
    assert error(h.threshold(calibrator, **options)) < 0.7 * error(h.threshold("minmax"))


def test_a_percentile_is_a_bin_of_the_true_one():
    x = torch.randn(50_000, generator=draw(3))
    h = Histogram()
    h.add(x)
    for percentile in (90.0, 99.0, 99.99, 100.0):
        want = float(np.percentile(x.abs().numpy(), percentile, method="inverted_cdf"))
        assert want <= h.threshold("percentile", percentile) + 1e-6
        assert h.threshold("percentile", percentile) <= want + h.end / BINS
    zeros = Histogram()
    zeros.add(torch.zeros(5))
    assert all(zeros.threshold(c) == 0 for c in ("minmax", "percentile", "entropy", "mse"))


def test_bias_correction_takes_the_mean_error_out(convolutions):
    """Of linears and of convolutions of every kind, padding included; without it the mean error is there."""
    graph, calls = convolutions
    samples, schemes = collect(graph, calls), {x.node: "int8" for x in layers_of(graph)}
    coarse = {x.node: replace(q, scale=q.scale * 16, q=(q.q / 16).round().to(torch.int8)) for x, q in zip(
        layers_of(graph), quantise_stage(graph, samples, schemes, Method()).values(), strict=True)}
    for layer in layers_of(graph):
        io = layer_io(graph, calls)[layer.node]
        weight = graph.constants[layer.weight]
        off = weight - coarse[layer.node].dequantised()
        op = next(n.target for n in graph.graph.nodes if n.name == layer.node)
        wrong = torch.cat([(op(a[0], off, None, *a[3:])) for a, _ in io]).double()
        wrong = wrong.movedim(1, -1).flatten(0, -2) if layer.kind == "conv" else wrong.flatten(0, -2)
        correction = mean_output(layer.kind, off, samples.inputs[layer.node]).double()
        assert wrong.mean(0).abs().max() > 1e-3
        assert (wrong.mean(0) - correction).abs().max() < 1e-6
        assert (wrong.mean(0) - correction.roll(1)).abs().max() > 1e-3  # the control: of other channels


def test_biases_are_corrected_where_asked(convolutions):
    graph, calls = convolutions
    samples, schemes = collect(graph, calls), {x.node: "int8" for x in layers_of(graph)}
    with_, without = (quantise_stage(graph, samples, schemes, Method(correct_bias=c)) for c in (True, False))
    assert all(q.bias is None for q in without.values()) and all(q.bias is not None for q in with_.values())
    for x in layers_of(graph):
        assert torch.equal(with_[x.node].q, without[x.node].q)


def obs_reference(w: np.ndarray, hessian: np.ndarray, scale: np.ndarray, block: int) -> np.ndarray:
    """Optimal brain quantisation in the order of columns, by the inverse Hessian of the columns that are left."""
    w, q = w.astype(np.float64).copy(), np.zeros(w.shape)
    for i in range(w.shape[1]):
        inverse = np.linalg.inv(hessian[i:, i:])
        s = scale[:, i // block]
        q[:, i] = np.clip(np.rint(w[:, i] / s), -8, 7)
        w[:, i:] -= np.outer((w[:, i] - q[:, i] * s) / inverse[0, 0], inverse[0])
    return q


def test_gptq_is_optimal_brain_quantisation(monkeypatch):
    """With scales that are given; every integer, for a K that no block divides."""
    g = draw(0)
    w, x = torch.randn(16, 72, generator=g), torch.randn(300, 24, generator=g) @ torch.randn(24, 72, generator=g)
    x += 0.3 * torch.randn(300, 72, generator=g)
    scale = block_scales(w, 32)
    given = iter(scale.T)
    monkeypatch.setattr("vlacompile.compiler.precision.quantise.gptq.searched_scales", lambda *_: next(given)[:, None])
    q, found = gptq(w, spread_of(x), torch.ones(72), 32)
    hessian = (x.double().T @ x.double()).numpy()
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(72)
    want = obs_reference(w.numpy(), hessian, scale.numpy(), 32)
    assert torch.equal(found, scale)
    assert (q.numpy() == want).mean() > 0.99 and np.abs(q.numpy() - want).max() <= 1  # ties fall either way in fp32


@pytest.mark.parametrize("k", [64, 100, 20])
def test_gptq_errs_less_than_rounding_where_inputs_are_correlated(k):
    g = draw(1)
    w = torch.randn(48, k, generator=g)
    x = torch.randn(1000, k // 4, generator=g) @ torch.randn(k // 4, k, generator=g)
    x += 0.2 * torch.randn(1000, k, generator=g)
    other = torch.randn(1000, k // 4, generator=g) @ torch.randn(k // 4, k, generator=g)
    error = lambda q, s, rows: float((rows @ (w - dequantise(q, s, 32)).T).square().mean())
    scale = block_scales(w, 32)
    rtn = (round_blocks(w, scale, 32), scale)
    fitted, misfitted = (gptq(w, spread_of(rows), rows.square().mean(0), 32) for rows in (x, other))
    assert error(*fitted, x) < 0.4 * error(*rtn, x)
    assert error(*misfitted, x) > error(*fitted, x) * 1.5  # the control: the Hessian of other inputs


def test_gptq_of_features_that_are_never_read_and_of_few_rows():
    w, x = torch.randn(8, 40, generator=draw(0)), torch.randn(5, 40, generator=draw(1))
    x[:, 10:20] = 0
    q, scale = gptq(w, spread_of(x), x.square().mean(0), 32)
    assert torch.isfinite(scale).all() and (scale > 0).all() and q.min() >= -8 and q.max() <= 7
    nothing = torch.zeros(5, 40)
    assert torch.equal(spread_of(nothing), torch.eye(40))
    assert torch.isfinite(gptq(w, spread_of(nothing), nothing[0], 32)[1]).all()


def test_searched_scales_know_what_is_read_much():
    """AWQ's clipping: outlier weights of columns that are hardly read are given up."""
    g = draw(2)
    w, x = torch.randn(32, 64, generator=g), torch.randn(500, 64, generator=g)
    w[:, 3] *= 4
    x[:, 3] *= 0.01
    error = lambda s: float((x @ (w - dequantise(round_blocks(w, s, 64), s, 64)).T).square().mean())
    assert error(searched_scales(w, 64, x.square().mean(0))) < 0.6 * error(block_scales(w, 64))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(1, 40), st.sampled_from([32, 64, 128]), st.sampled_from(["rtn", "awq", "gptq"]))
def test_int4_of_any_size(k, n, block, rounding):
    """Layers narrower than a block, and tails."""
    g = draw(k * 100 + n)
    w, x = torch.randn(n, k, generator=g), torch.randn(64, k, generator=g)
    if rounding == "gptq":
        q, scale = gptq(w, spread_of(x), x.square().mean(0), block)
    else:
        scale = block_scales(w, block) if rounding == "rtn" else searched_scales(w, block, x.square().mean(0))
        q = round_blocks(w, scale, block)
    layer = QuantisedLayer("int4", q, scale, block)
    assert scale.shape == (n, -(-k // block)) and layer.dequantised().shape == w.shape
    assert float((x @ (w - layer.dequantised()).T).norm() / (x @ w.T).norm()) < 0.25
