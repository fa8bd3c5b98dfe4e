"""Groups of values that are rotated: the function stays, in f64 to the last digits; and int8 errors fall."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.compiler.precision.quantise.quantised_stages import Block, as_stage, layer_norm, run
from tests.compiler.precision.rotate.planted import TOKENS, Outliers
from vlacompile.compiler.precision.assign.quantiser import run_calls
from vlacompile.compiler.precision.quantise.calibrate import collect
from vlacompile.compiler.precision.quantise.insert_quantised_ops import insert_quantised_ops
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.precision.quantise.quantise import Method, quantise_stage
from vlacompile.compiler.precision.rotate.find_places import places_of
from vlacompile.compiler.precision.rotate.fold_rotation import folded
from vlacompile.compiler.precision.rotate.groups import groups_of, rotated
from vlacompile.compiler.precision.rotate.orthogonal import rotation
from vlacompile.compiler.staging.stages import StageGraph


def wide(stage: StageGraph) -> StageGraph:
    return replace(stage, constants={n: t.double() if t.is_floating_point() else t
                                     for n, t in stage.constants.items()})


def linears(stage: StageGraph) -> list[str]:
    return [x.node for x in layers_of(stage) if x.kind == "linear"]


def off(stage: StageGraph, other: StageGraph, *call: torch.Tensor) -> float:
    a, b = run(stage, call), run(other, call)
    return float((a - b).abs().max() / a.abs().max())


class Net(nn.Module):
    def __init__(self, attention: str, norm: str, width: int = 48, ends: bool = True):
        super().__init__()
        self.first, self.block = nn.Linear(12, width), Block(width, 4, 2, attention, norm)
        self.norm, self.last, self.ends = layer_norm(width), nn.Linear(width, 5), ends

    def forward(self, x):
        x = self.norm(self.block(self.first(x)))
        return self.last(x) if self.ends else x


@pytest.mark.parametrize(("attention", "norm"), [("sdpa", "layer"), ("grouped", "rms"), ("matmul", "composed")])
def test_every_group_of_a_transformer_keeps_its_function(attention, norm):
    torch.manual_seed(0)
    x = torch.randn(1, 6, 12)
    stage = as_stage(Net(attention, norm), x=x)
    before = {n: t.clone() for n, t in stage.constants.items()}
    groups = groups_of(stage, linears(stage))
    kinds = {g.kind: g for g in groups.found}
    assert [g.kind for g in groups.found].count("stream") == 1 and {"stream", "heads", "input"} == set(kinds)
    assert kinds["stream"].turns == () and len(kinds["stream"].reads) == 5  # q, kv, gate, up and the last
    assert kinds["heads"].size == 12 and kinds["heads"].turns == ()
    assert all(g.turns for g in groups.found if g.kind == "input")
    for group in groups.found:
        assert off(wide(stage), rotated(wide(stage), [group]), x.double()) < 1e-12
    assert off(wide(stage), rotated(wide(stage), groups.found), x.double()) < 1e-12
    assert off(stage, rotated(stage, groups.found), x) < 1e-5
    assert all(torch.equal(t, stage.constants[n]) for n, t in before.items())


def test_what_leaves_the_stage_is_turned_back():
    torch.manual_seed(0)
    x = torch.randn(1, 6, 12)
    stage = as_stage(Net("sdpa", "rms", ends=False), x=x)
    (stream,) = (g for g in groups_of(stage, linears(stage)).found if g.kind == "stream")
    assert [t.value for t in stream.turns] == ["layer_norm"]
    assert off(wide(stage), rotated(wide(stage), [stream]), x.double()) < 1e-12


@pytest.mark.parametrize("wrong", ["mean", "writer", "reader", "gain"])
def test_a_wrong_place_is_another_function(wrong):
    """The controls of the tests above: the same comparison, one mistake."""
    torch.manual_seed(0)
    x = torch.randn(1, 6, 12).double()
    stage = wide(as_stage(Net("sdpa", "layer"), x=x.float()))
    seed = next(n for n in stage.graph.nodes if n.name == "linear")
    places = places_of(stage, seed, 48)
    assert places.keeps_mean
    if wrong == "mean":
        made = folded(stage, replace(places, keeps_mean=False), rotation(48, 0))
    else:
        if wrong == "writer":
            del places.writes[next(reversed(places.writes))]
        elif wrong == "reader":
            del places.reads[next(reversed(places.reads))]
        else:
            places.neutral.clear()
        made = folded(stage, places, rotation(48, 0, True))
    assert off(stage, made, x) > 1e-3


def test_embeddings_convolutions_tables_and_picked_rows():
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.words, self.place = nn.Conv2d(3, 16, 2, 2), nn.Embedding(9, 16), nn.Parameter(
                torch.randn(1, 4, 16))
            self.token, self.norm = nn.Parameter(torch.randn(1, 1, 16)), layer_norm(16)
            self.scale, self.a, self.b, self.c = nn.Parameter(torch.rand(16)), nn.Linear(16, 20), nn.Linear(
                20, 16), nn.Linear(16, 4)

        def forward(self, image, ids):
            x = self.conv(image).flatten(2).transpose(1, 2) + self.place
            x = torch.cat([self.token, x, self.words(ids)], 1)
            x = x + self.scale * self.b(torch.tanh(self.a(self.norm(x))))
            return self.c(self.norm(x)[:, [0, 2]])

    torch.manual_seed(0)
    call = torch.randn(1, 3, 4, 4), torch.tensor([[1, 5]])
    stage = as_stage(Seen(), image=call[0], ids=call[1])
    groups = groups_of(stage, linears(stage)).found
    assert groups[0].kind == "stream" and groups[0].turns == () and len(groups[0].reads) == 2
    assert off(wide(stage), rotated(wide(stage), groups), call[0].double(), call[1]) < 1e-12


def test_modulated_and_gated_values_are_left_alone():
    """A gain that inputs decide cannot be folded: values are turned around it, or are in no group."""
    class Modulated(nn.Module):
        def __init__(self):
            super().__init__()
            self.s, self.a, self.b, self.c = nn.Linear(8, 48), nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x, s):
            scale, shift, gate = self.s(s)[:, None].chunk(3, -1)
            x = self.a(x)
            x = x + gate * self.b(F.layer_norm(x, (16,)) * (1 + scale) + shift)
            return self.c(x)

    torch.manual_seed(0)
    call = torch.randn(1, 6, 8), torch.randn(1, 8)
    stage = as_stage(Modulated(), x=call[0], s=call[1])
    groups = groups_of(stage, linears(stage)).found
    (stream,) = (g for g in groups if g.kind == "stream" and g.seed == "linear_1")
    assert len(stream.turns) == 2  # the gated branch, and what is modulated
    assert off(wide(stage), rotated(wide(stage), groups), *(c.double() for c in call)) < 1e-12


@settings(max_examples=12, deadline=None)
@example(212, ["gate", "linear", "cat"])  # two groups turn one value
@given(st.integers(0, 10**6), st.lists(st.sampled_from(
    ["linear", "gate", "norm", "rms", "tanh", "heads", "cat", "add", "branch", "times", "slice", "attend", "row",
     "mean", "plus"]), min_size=2, max_size=8))
def test_random_networks_keep_their_function(seed, ops):
    torch.manual_seed(seed)

    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(2 * len(ops) + 2)])
            self.norms = nn.ModuleList([layer_norm(8) for _ in ops])
            self.scale = nn.ParameterList([torch.rand(8) + 0.5 for _ in ops])

        def forward(self, x):
            kept = [self.layers[-2](x)]
            x = kept[0]
            for i, op in enumerate(ops):
                a, b, other = self.layers[2 * i], self.layers[2 * i + 1], kept[(seed + i) % len(kept)]
                x = {"linear": lambda: a(x), "gate": lambda: F.silu(a(x)) * b(x), "norm": lambda: self.norms[i](x),
                     "rms": lambda: F.rms_norm(x, (8,), self.scale[i]), "tanh": x.tanh,
                     "cat": lambda: torch.cat([x[:, :3], other[:, 3:]], 1),
                     "heads": lambda: x.view(1, 6, 2, 4).transpose(1, 2).flip(1).transpose(1, 2).reshape(1, 6, 8),
                     "add": lambda: x + other, "branch": lambda: a(x) + b(x).relu(), "times": lambda: x * self.scale[i],
                     "slice": lambda: torch.stack([a(x)[..., ::2], x[..., 1::2]], -1).flatten(-2),
                     "attend": lambda: torch.softmax(other @ x.transpose(1, 2), -1) @ a(x),
                     "row": lambda: x * torch.sigmoid(other.mean(-1, keepdim=True)),
                     "mean": lambda: x - x.mean(1, keepdim=True), "plus": lambda: x * 0.5 + 2.0}[op]()
                kept.append(x)
            return self.layers[-1](x)

    x = torch.randn(1, 6, 8)
    stage = wide(as_stage(Random(), x=x))
    groups = groups_of(stage, linears(as_stage(Random(), x=x)))
    made = rotated(stage, groups.found)
    a, b = run(stage, (x.double(),)), run(made, (x.double(),))
    assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(a.abs().max()))


# The error falls

@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_planted_outliers_cost_less_when_rotated(norm):
    torch.manual_seed(0)
    stage = as_stage(Outliers(100.0, norm, layers=1), observation=torch.randn(1, TOKENS * 6))
    calls = [(torch.randn(1, TOKENS * 6),) for _ in range(6)]
    want = run_calls(stage, calls)[0].view(len(calls), -1)
    spread = want - want.mean(0)  # what actions vary by
    schemes = dict.fromkeys(linears(stage), "int8")

    def error(of: StageGraph) -> float:
        layers = quantise_stage(of, collect(of, calls), schemes, Method())
        got = run_calls(insert_quantised_ops(of, layers, "tensorrt", {}), calls)[0].view(len(calls), -1)
        return float((got - want).norm() / spread.norm())

    free = [g for g in groups_of(stage, schemes).found if not g.turns]
    plain, turned = error(stage), error(rotated(stage, free))
    assert plain > 0.2 and turned < plain / 3, f"{plain:.4g} plain, {turned:.4g} rotated"
