"""Equal layers as a loop: found where they are equal, the same numbers, and refused where they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples.deep import deep
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.precision.fp16.rewrite import to_fp16
from vlacompile.compiler.staging.find_depth import find_depth
from vlacompile.compiler.staging.roll_depth import roll_depth
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.policy import Policy, Source
from vlacompile.recipe.recipe import StagesRecipe, load_recipe

APART = replace(load_recipe(None), stages=StagesRecipe(min_flops=0))


def staged_of(policy: Policy) -> Staged:
    return stage(capture(policy, whole=True), load_target("host"), APART).staged


def rolled(staged: Staged):
    return roll_depth(staged, {s.name for s in staged.stages})


def chain(*layers: torch.nn.Module, head: bool = False) -> tuple[Policy, StageGraph]:
    """The policy of layers after each other, and its only stage."""
    model = torch.nn.Sequential(*layers, *([torch.nn.Linear(8, 3)] if head else [])).eval()
    policy = Policy("chain", lambda x: {"action": model(x)}, {"x": Source("observation")}, {"x": torch.randn(1, 4, 8)})
    found = staged_of(policy)
    only, = found.stages
    return policy, only


def block(inner: int = 16) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(8, inner), torch.nn.GELU(), torch.nn.Linear(inner, 8))


@settings(max_examples=12, deadline=None)
@given(layers=st.integers(3, 6), reads=st.booleans(), bias=st.booleans(), seed=st.integers(0, 100))
def test_every_value_is_as_before(layers, reads, bias, seed):
    policy = deep(layers, reads, bias, seed)
    staged = staged_of(policy)
    found = rolled(staged)
    (count, parts), = found.layers.values()
    assert count == layers and [p.rpartition(".")[2] for p in parts] == ["before", "layers", "after"]
    got, want = (StageRunner(s).run(policy.example_inputs) for s in (found.staged, staged))
    for name in want:
        value, row = found.rows.get(name, (name, None))
        torch.testing.assert_close(got[value] if row is None else got[value][row], want[name], rtol=1e-5, atol=1e-5)
    assert len(found.rows) == (2 * layers if reads else 0)


def test_one_layers_weights_are_in_no_stage():
    """Only what all layers share, and what is around them."""
    staged = staged_of(deep(6))
    found = rolled(staged)
    before, = (s for s in staged.stages if len(s.constants) > 20)
    loop, = (s for s in found.staged.stages if s.name.endswith(".layers"))
    depth, _ = find_depth(before)
    tables = [found.staged.constants[p.value] for p in loop.inputs if p.mode == "row"]
    assert loop.iterations == 6 and all(len(t) == 6 for t in tables)
    assert sum(t.nbytes for t in tables) == depth.bytes > 20 * sum(t.nbytes for t in loop.constants.values())
    kept = sum(t.nbytes for s in found.staged.stages for t in s.constants.values())
    assert kept == sum(t.nbytes for s in staged.stages for t in s.constants.values()) - depth.bytes


def test_in_fp16_too():
    policy = deep(4)
    staged = staged_of(policy)
    half = replace(staged, stages=tuple(to_fp16(s, ()) for s in staged.stages))
    found = rolled(half)
    assert found.layers
    got, want = (StageRunner(s).run(policy.example_inputs)["action"] for s in (found.staged, half))
    torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-3)


def test_a_stage_rolled_again_stays():
    found = rolled(staged_of(deep(4)))
    again = rolled(found.staged)
    assert not again.layers and again.staged is found.staged


@pytest.mark.parametrize("layers", [
    [block() for _ in range(2)], [block(16), block(24), block(16), block(24), block(16)],
    [torch.nn.GELU() for _ in range(5)], [torch.nn.Linear(8, 8)]])
def test_what_is_not_equal_is_no_loop(layers):
    """Two layers, layers of two sizes in turn (2.5 periods), and none with weights."""
    _, only = chain(*layers)
    depth, said = find_depth(only)
    assert depth is None and said


def test_layers_of_two_kinds_in_turn_are_one_body():
    _, only = chain(*[block(16 if i % 2 else 24) for i in range(6)])
    depth, _ = find_depth(only)
    assert depth is not None and depth.layers == 3


def test_a_layer_that_differs_ends_the_loop():
    layers = [block() for _ in range(6)]
    layers[4][1] = torch.nn.ReLU()
    _, only = chain(*layers)
    depth, _ = find_depth(only)
    assert depth is not None and depth.layers == 4


def test_layers_with_few_of_the_weights_stay():
    _, only = chain(*[block(1) for _ in range(4)], torch.nn.Linear(8, 512), torch.nn.Linear(512, 8))
    depth, why = find_depth(only)
    assert depth is None and why


def test_quantised_weights_stay():
    _, only = chain(*[block() for _ in range(4)])
    for node in only.graph.nodes:
        if node.op == "get_attr":
            node.meta["val"] = node.meta["val"].to(torch.int8)
    depth, why = find_depth(only)
    assert depth is None and why


def test_without_weights_it_is_shapes():
    staged = staged_of(deep(5))
    shapes = replace(staged, stages=tuple(replace(s, constants={n: t.to("meta") for n, t in s.constants.items()})
                                          for s in staged.stages))
    tables = [t for n, t in rolled(shapes).staged.constants.items() if ".table_" in n]
    assert tables and all(t.is_meta for t in tables)
