"""Values between stages in fp16: the same numbers, bit for bit, and half of the bytes."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.history import newest_of
from vlacompile.compiler.precision.fp16.narrow_values import narrow_values
from vlacompile.compiler.precision.fp16.rewrite import to_fp16
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged
from vlacompile.hardware.target import load_target
from vlacompile.phases.find_stages import stage
from vlacompile.policy.policy import Policy
from vlacompile.recipe.recipe import StagesRecipe, load_recipe

POLICIES = {"late fusion": policies.late_fusion, "flow": policies.flow, "two cameras": policies.two_cameras,
            "remember": policies.remember}


@functools.cache
def staged_of(name: str) -> tuple[Policy, Staged]:
    """However small, stages stay apart."""
    policy, recipe = POLICIES[name](), replace(load_recipe(None), stages=StagesRecipe(min_flops=0))
    return policy, stage(capture(policy, whole=True), load_target("orin-nano-8gb"), recipe).staged


def in_fp16(staged: Staged, kept: dict[str, set[str]] | None = None) -> Staged:
    """kept: {stage: nodes that stay in f32}"""
    return replace(staged, stages=tuple(to_fp16(s, (kept or {}).get(s.name, set())) for s in staged.stages))


def casts(staged: Staged) -> int:
    return sum(n.target is torch.ops.aten._to_copy.default for s in staged.stages for n in s.graph.nodes)


def same(policy, one: Staged, other: Staged) -> bool:
    """All values are equal, those in fp16 to what their readers rounded."""
    inputs = newest_of(dict(policy.sources), policy.example_inputs)
    got, want = (StageRunner(s).run(inputs, {}) for s in (other, one))
    assert got.keys() == want.keys()
    return all(torch.equal(got[n], want[n].to(got[n].dtype)) for n in want)


@pytest.mark.parametrize("name", POLICIES)
def test_no_number_changes_and_ports_match(name):
    policy, plain = staged_of(name)
    staged = in_fp16(plain)
    found = narrow_values(staged)
    narrow = [b for b in found.boundaries if not b.why]
    assert narrow and same(policy, staged, found.staged)
    assert casts(found.staged) == casts(staged) - sum(b.casts - b.added for b in narrow)
    for s in found.staged.stages:
        results = s.graph.output_node().args[0]
        ports = {n.name: n for n in s.graph.nodes if n.op == "placeholder"}
        for node, port in [*((ports[p.name], p) for p in s.inputs), *zip(results, s.outputs, strict=True)]:
            half = found.staged.types[port.value].dtype == "f16"
            assert (node.meta["val"].dtype == torch.float16) == half
    outer = {*staged.program.sources, *staged.program.outputs}
    assert all(found.staged.types[n].dtype == staged.types[n].dtype for n in outer)
    again = narrow_values(found.staged)
    assert again.staged is found.staged and all(b.why for b in again.boundaries)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), name=st.sampled_from(["late fusion", "flow"]))
def test_whatever_stays_in_f32(data, name):
    policy, staged = staged_of(name)
    kept = {s.name: data.draw(st.sets(st.sampled_from([n.name for n in s.graph.nodes if n.op == "call_function"])))
            for s in staged.stages}
    converted = in_fp16(staged, kept)
    found = narrow_values(converted)
    assert same(policy, converted, found.staged)


def test_what_is_computed_and_read_in_f32_stays_in_f32():
    """The negative control: rounding it would change numbers."""
    _, staged = staged_of("late fusion")
    found = narrow_values(staged)
    assert found.staged is staged and found.boundaries and all(b.why for b in found.boundaries)
    halves = replace(staged, types={n: replace(t, dtype="f16") if n not in {*staged.program.sources} else t
                                    for n, t in staged.types.items()})
    assert narrow_values(halves).boundaries == ()


def test_a_line_per_edge_says_bytes_and_casts():
    staged = in_fp16(staged_of("late fusion")[1])
    lines = [b.line for b in narrow_values(staged).boundaries if not b.why]
    assert lines and all("bytes become" in line and "casts less" in line for line in lines)
