"""Divisors that move into the constants behind a value: the function stays, the quantised error falls."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.compiler.precision.quantise.quantised_stages import Block, as_stage, layer_norm, run
from vlacompile.compiler.precision.quantise import smoothing as module
from vlacompile.compiler.precision.quantise.calibrate import collect
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, quantise_stage
from vlacompile.compiler.precision.quantise.scale_propagation import divide
from vlacompile.compiler.precision.quantise.smoothing import smooth_activations, tied
from vlacompile.compiler.staging.stages import StageGraph


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linears(stage: StageGraph, scheme: str) -> dict[str, str]:
    return {x.node: scheme for x in layers_of(stage) if x.kind == "linear"}


def node(stage: StageGraph, name: str):
    return next(n for n in stage.graph.nodes if n.name == name)


def value_of(stage: StageGraph, weight: str):
    """What the linear of this weight reads."""
    return next(n.args[0] for n in stage.graph.nodes if n.target is torch.ops.aten.linear.default
                and n.args[1].target.endswith(weight))


def rescaled(stage: StageGraph, seed: int = 0, spread: float = 3.0, only: str | None = None) -> tuple[StageGraph, dict]:
    """Every value that linears read, divided by random numbers wherever it can be; {value: free channels}."""
    factors, free = {}, {}
    of: dict = {}
    for x in layers_of(stage):
        if x.kind == "linear":
            of.setdefault(node(stage, x.node).args[0], []).append(node(stage, x.node))
    for value, readers in of.items():
        if only is not None and value is not value_of(stage, only):
            continue
        division = divide(value, frozenset(readers))
        free[value.name] = division.free()
        raw = (torch.randn(value.meta["val"].shape[-1], generator=draw(seed)) * spread).exp()
        module.add_factors(factors, tuple(readers), division.edits, tied(raw, division.ties.classes()[1:]))
    return module.rescaled(stage, factors), free


def difference(a: StageGraph, b: StageGraph, call) -> float:
    x, y = run(a, call), run(b, call)
    return float((x - y).abs().max() / x.abs().max())


# The function is preserved

@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["sdpa", "grouped", "matmul"]), st.sampled_from(["layer", "rms", "composed"]), st.booleans(),
       st.sampled_from([1, 2, 4]), st.integers(0, 1000))
def test_blocks_of_every_kind_keep_their_function(attention, norm, bias, groups, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(Block(32, 4, groups, attention, norm, bias), Block(32, 4, groups, attention, norm, bias))
    example = torch.randn(1, 6, 32)
    stage = as_stage(net, x=example)
    before = {n: t.clone() for n, t in stage.constants.items()}
    got, free = rescaled(stage, seed, spread=1.0)
    # both norms, the attention's output and the gated value: all channels of all of them, in both blocks
    assert list(free.values()) == [32, 32, 32, 64] * 2
    assert all(torch.equal(t, stage.constants[n]) for n, t in before.items())
    assert difference(stage, got, (example,)) < 1e-5
    assert any(n not in stage.constants for n in got.constants)


def test_layers_of_a_single_vector_keep_their_function():
    torch.manual_seed(0)
    example = torch.randn(16)
    stage = as_stage(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), x=example)
    got, free = rescaled(stage, spread=1.0)
    assert 32 in free.values() and difference(stage, got, (example,)) < 1e-5


def test_grouped_queries_share_their_divisors():
    torch.manual_seed(0)
    stage = as_stage(Block(32, 4, 2), x=torch.randn(1, 6, 32))
    value = value_of(stage, "out__weight")
    classes = divide(value, frozenset(value.users)).ties.classes()[1:].view(4, 8)
    assert torch.equal(classes[0], classes[1]) and torch.equal(classes[2], classes[3])
    assert len(classes.unique()) == 16


@pytest.mark.parametrize("wrong", ["axis of the readers", "axis of the producer", "heads swapped", "query for value",
                                   "one reader left out", "bias left out"])
def test_scales_in_the_wrong_place_are_another_function(wrong):
    """The controls of the tests above: the same comparison, an error in the folding."""
    torch.manual_seed(0)
    example = torch.randn(1, 6, 32)
    stage = as_stage(Block(32, 4, 4), x=example)
    value = value_of(stage, "gate__weight" if "left out" in wrong else "out__weight")
    readers = tuple(value.users)
    division = divide(value, frozenset(readers))
    divisors = tied((torch.randn(32, generator=draw(1))).exp(), division.ties.classes()[1:])
    edits, factors = dict(division.edits), {}
    if wrong == "one reader left out":
        readers = readers[:1]
    elif wrong == "bias left out":
        edits = {p: e for p, e in edits.items() if p[1] != 3}
    elif wrong == "heads swapped":
        edits = {p: torch.cat([e[:32], e[32:].roll(8, 0)]) for p, e in edits.items()}
    elif wrong == "query for value":  # the halves of keys and values
        edits = {p: e.roll(32, 0) for p, e in edits.items()}
    module.add_factors(factors, readers, edits, divisors)
    if wrong == "axis of the readers":
        factors[readers[0], 1] = factors[readers[0], 1].reshape(-1, 1) * torch.ones(32, 32)
    if wrong == "axis of the producer":
        (place,) = (p for p in factors if p[1] == 1 and p[0] is not readers[0])
        factors[place] = factors[place][:, :1].roll(1, 0) * torch.ones_like(factors[place])
    assert difference(stage, module.rescaled(stage, factors), (example,)) > 1e-2


def test_what_somebody_else_reads_stays():
    """A residual that reads the norm's output, an output of the policy, a nonlinear op between."""
    class PostNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b, self.c = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

        def forward(self, x):
            h = self.norm(x)
            return self.c(h + self.b(F.gelu(self.a(h))))

    torch.manual_seed(0)
    example = torch.randn(1, 5, 16)
    stage = as_stage(PostNorm(), x=example)
    samples = collect(stage, [(example,)])
    result = smooth_activations(stage, samples, linears(stage, "int8"), Method())
    assert result.stage is stage
    assert len(result.notes) == 3 and all("not rescaled" in n for n in result.notes)
    assert "%gelu" in result.notes[1] and "%add" in result.notes[0]


def test_half_of_a_value_can_be_divided():
    """What is concatenated from something that cannot is left at 1 there, and divided in the rest."""
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(16, 4)

        def forward(self, x):
            return self.b(torch.cat([torch.tanh(x), self.a(x).relu()], -1))

    torch.manual_seed(0)
    example = torch.randn(1, 5, 8)
    stage = as_stage(Half(), x=example)
    got, free = rescaled(stage)
    assert sorted(free.values()) == [0, 8]
    assert difference(stage, got, (example,)) < 1e-5
    changed = got.constants[next(n for n in got.constants if "b__weight" in n)] / stage.constants["module__b__weight"]
    assert (changed[:, :8] == 1).all() and ((changed[:, 8:] - 1).abs() > 1e-3).all()


def test_the_same_value_on_two_ways_is_divided_once():
    """y * relu(y), y * y, y + a(y): a product would be divided twice."""
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            y = self.a(x)
            return self.b(y * y.relu()) + self.c(y * y) + self.d((y + y.relu()) * 2.0)

    torch.manual_seed(0)
    example = torch.randn(1, 5, 8)
    stage = as_stage(Twice(), x=example)
    got, free = rescaled(stage)
    assert difference(stage, got, (example,)) < 1e-5
    assert all(n == 0 for n in free.values())  # y has readers that are not divided


@pytest.mark.parametrize("kind", ["conv", "batch norm", "sum", "bare norm", "product", "modulated"])
def test_other_producers(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.bn.running_var.uniform_(0.5, 2)
            self.a, self.c, self.b = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
            self.s = nn.Linear(8, 16)
            self.place = nn.Parameter(torch.randn(16, 8))

        def forward(self, image):
            x = self.conv(image)
            if kind == "batch norm":
                x = self.bn(x).relu()
            x = x.flatten(2).transpose(1, 2)
            if kind == "sum":
                x = self.a(x.relu()) + self.place
            if kind == "bare norm":
                x = F.layer_norm(x, (8,))
            if kind == "product":
                x = torch.softmax(x @ x.transpose(1, 2), -1) @ self.c(x)
            if kind == "modulated":
                scale, shift = self.s(torch.tanh(x.mean(1))).chunk(2, -1)
                x = F.layer_norm(x, (8,)) * (1 + scale[:, None]) + shift[:, None]
            return self.b(x)

    torch.manual_seed(0)
    example = torch.randn(1, 3, 4, 4)
    stage = as_stage(Net(), image=example)
    got, free = rescaled(stage, spread=1.0, only="b__weight")
    assert list(free.values()) == [8]
    assert difference(stage, got, (example,)) < 1e-5
    assert got is not stage and set(got.constants) != set(stage.constants)


@pytest.mark.parametrize(("kind", "free"), [("square", 0), ("mixed over tokens", 8), ("grouped", 8),
                                            ("one for all", 8)])
def test_divisors_that_must_be_equal_or_none(kind, free):
    """A square; a linear over tokens, whose rows all channels share; heads of values that several queries read;
    one number that multiplies all channels."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.t, self.b, self.one = nn.Linear(8, 8), nn.Linear(6, 6), nn.Linear(8, 5), nn.Linear(8, 1)

        def forward(self, x):
            if kind == "square":
                y = self.a(x)
                return self.b(y * y)
            if kind == "mixed over tokens":
                return self.b(self.t(torch.tanh(x).transpose(1, 2)).transpose(1, 2))
            if kind == "grouped":
                q = torch.tanh(x).view(1, 6, 4, 2).transpose(1, 2)
                v = self.a(x)[..., :4].view(1, 6, 2, 2).transpose(1, 2)
                out = F.scaled_dot_product_attention(q, q[:, :2], v, enable_gqa=True)
                return self.b(out.transpose(1, 2).reshape(1, 6, 8))
            return self.b(torch.tanh(x) * self.one(x))

    torch.manual_seed(0)
    example = torch.randn(1, 6, 8)
    stage = as_stage(Net(), x=example)
    got, found = rescaled(stage, spread=1.0, only="b__weight")
    assert difference(stage, got, (example,)) < 1e-5
    assert list(found.values()) == [free]


def test_shared_weights_change_for_one_reader_alone():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.out = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            h = self.a(self.norm(x))       # the weight of `a` twice: once its columns are multiplied,
            return self.out(torch.tanh(h)) + self.out(self.a(torch.tanh(h)))  # once its rows are divided

    torch.manual_seed(0)
    example = torch.randn(1, 5, 16)
    stage = as_stage(Shared(), x=example)
    got, free = rescaled(stage, spread=1.0)
    assert sorted(free.values()) == [0, 0, 16, 16]
    assert difference(stage, got, (example,)) < 1e-5
    weights = [got.constants[n.args[1].target] for n in got.graph.nodes if n.target is torch.ops.aten.linear.default]
    assert len({tuple(w.flatten().tolist()) for w in weights}) == 4
    assert {n.name for n in got.graph.nodes if n.op == "call_function"} == {
        n.name for n in stage.graph.nodes if n.op == "call_function"}


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_random_networks_keep_their_function(data):
    """Chains of random ops with branches and several readers, whatever is found to be divisible."""
    seed = data.draw(st.integers(0, 10**6))
    ops = data.draw(st.lists(st.sampled_from(["linear", "gate", "norm", "relu", "tanh", "heads", "cat", "add", "branch",
                                              "times", "slice", "attend"]), min_size=2, max_size=9))
    torch.manual_seed(seed)

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(2 * len(ops) + 1)])
            self.norms = nn.ModuleList([layer_norm(8) for _ in ops])
            self.scale = nn.ParameterList([torch.rand(8) + 0.5 for _ in ops])

        def forward(self, x):
            kept = [x]
            for i, op in enumerate(ops):
                a, b, other = self.layers[2 * i], self.layers[2 * i + 1], kept[(seed + i) % len(kept)]
                x = {"linear": lambda: a(x), "gate": lambda: F.silu(a(x)) * b(x), "norm": lambda: self.norms[i](x),
                     "relu": x.relu, "tanh": x.tanh,
                     "cat": lambda: torch.cat([x[..., :3], other[..., 3:]], -1),
                     "heads": lambda: x.view(1, 6, 2, 4).transpose(1, 2).flip(1).transpose(1, 2).reshape(1, 6, 8),
                     "add": lambda: x + other, "branch": lambda: a(x) + b(x).relu(), "times": lambda: x * self.scale[i],
                     "slice": lambda: torch.stack([a(x)[..., ::2], x[..., 1::2]], -1).flatten(-2),
                     "attend": lambda: torch.softmax(other @ x.transpose(1, 2), -1) @ a(x)}[op]()
                kept.append(x)
            return self.layers[-1](x)

    example = torch.randn(1, 6, 8)
    stage = as_stage(Random(), x=example)
    got, _ = rescaled(stage, seed, spread=1.0)
    wide = [replace(s, constants={n: t.double() for n, t in s.constants.items()}) for s in (stage, got)]
    assert difference(*wide, (example.double(),)) < 1e-5  # constants are rounded to fp32; sums may cancel


# The error falls

def hard_block(seed: int = 0) -> tuple[StageGraph, list]:
    """A block whose norms give some channels far more than others."""
    torch.manual_seed(seed)
    net = Block(64, 4, 2, norm="rms")
    for norm in (net.norm_1, net.norm_2):
        norm.weight.data[[3, 40]] *= 40
    stage = as_stage(net, x=torch.randn(1, 32, 64))
    return stage, [(torch.randn(1, 32, 64, generator=draw(i)),) for i in range(6)]


def output_error(stage: StageGraph, calls, scheme: str, method: Method) -> float:
    """Relative, of the stage with every linear quantised, weights and, for INT8, activations."""
    samples = collect(stage, calls)
    layers = quantise_stage(stage, samples, linears(stage, scheme), method)
    wrong = quantised(stage, layers)
    pairs = [(run(wrong, c), run(stage, c)) for c in calls]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)) ** 0.5


def quantised(stage: StageGraph, layers) -> StageGraph:
    """The stage with dequantised weights, and with activations rounded before every linear in INT8."""
    from torch.fx import Graph

    graph, copies, constants = Graph(), {}, dict(stage.constants)
    for n in stage.graph.nodes:
        new = copies[n] = graph.node_copy(n, lambda m: copies[m])
        if n.name not in layers:
            continue
        layer, args = layers[n.name], list(new.args)
        constants[f"q_{n.name}"] = layer.dequantised()
        with graph.inserting_before(new):
            args[1] = graph.get_attr(f"q_{n.name}")
            if layer.scheme == "int8":
                scale = max(-layer.low, layer.high) / 127
                args[0] = graph.call_function(torch.fake_quantize_per_tensor_affine, (args[0], scale, 0, -127, 127))
            if layer.bias is not None:
                constants[f"b_{n.name}"] = layer.bias
                args[2:] = [graph.get_attr(f"b_{n.name}")]
        new.args = tuple(args)
    return replace(stage, graph=graph, constants=constants)


@pytest.mark.parametrize("alpha", [0.5, None])
def test_smoothquant_lowers_the_error_of_w8a8_where_channels_are_outliers(alpha):
    stage, calls = hard_block()
    method = Method(alpha=alpha)
    got = smooth_activations(stage, collect(stage, calls), linears(stage, "int8"), method)
    assert difference(stage, got.stage, calls[0]) < 1e-5
    before, after = (output_error(s, calls, "int8", method) for s in (stage, got.stage))
    assert after < 0.6 * before
    assert sum("rescaled" in n for n in got.notes) >= 3


def test_awq_lowers_the_error_of_int4_where_channels_are_outliers():
    stage, calls = hard_block()
    rtn, awq = Method(int4="rtn", block=32), Method(int4="awq", block=32)
    got = smooth_activations(stage, collect(stage, calls), linears(stage, "int4"), awq)
    assert difference(stage, got.stage, calls[0]) < 1e-5
    plain, searched, both = (output_error(stage, calls, "int4", rtn), output_error(stage, calls, "int4", awq),
                             output_error(got.stage, calls, "int4", awq))
    assert both < 0.7 * plain and both < searched
    assert smooth_activations(stage, collect(stage, calls), linears(stage, "int4"), rtn).stage is stage


def test_a_search_never_makes_its_own_error_greater_and_says_so():
    torch.manual_seed(0)
    stage = as_stage(Block(32, 4, 2), x=torch.randn(1, 6, 32))
    calls = [(torch.randn(1, 6, 32, generator=draw(i)),) for i in range(3)]
    for scheme in ("int8", "int4"):
        method = Method(int4="awq", alpha=None)
        result = smooth_activations(stage, collect(stage, calls), linears(stage, scheme), method)
        for note in result.notes:
            if "->" in note:
                before, after = (float(x) for x in note.split("error ")[1].split(" -> "))
                assert after <= before
        again = smooth_activations(stage, collect(stage, calls), linears(stage, scheme), Method(int4="awq", alpha=None))
        assert again.notes == result.notes
        assert all(torch.equal(t, again.stage.constants[n]) for n, t in result.stage.constants.items())


def test_layers_that_stay_in_floating_point_are_rescaled_with_their_neighbours():
    stage, calls = hard_block()
    only = {next(x.node for x in layers_of(stage) if x.weight.endswith("q__weight")): "int8"}
    got = smooth_activations(stage, collect(stage, calls), only, Method())
    assert len(got.notes) == 1 and difference(stage, got.stage, calls[0]) < 1e-5
