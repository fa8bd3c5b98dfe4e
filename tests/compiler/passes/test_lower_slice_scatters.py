"""Rows that are written into a tensor, one by one: each depends on what was written there alone."""

from __future__ import annotations

import torch

from tests.samples.staging import verified
from vlacompile import Policy, Source
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.hardware.target import load_target
from vlacompile.recipe.recipe import load_recipe


def _written(base, a, b):
    x = base.clone()
    x[:, 0] = a
    x[:, -1] = b
    return {"action": x, "first": torch.tanh(x[:, 0]), "last": torch.tanh(x[:, 2])}


def _whole(base, a, b):
    x = base[:, :1].clone()
    x[:, 0] = a
    return {"action": x + 0, "first": torch.tanh(x[:, 0]), "last": b + 0}


def _sources_of(policy_function) -> dict[str, frozenset[str]]:
    inputs = {"base": torch.randn(1, 3, 4), "a": torch.randn(1, 4), "b": torch.randn(1, 4)}
    policy = Policy("rows", policy_function, dict.fromkeys(inputs, Source("observation")), inputs,
                    outputs=("action", "first", "last"))
    program = verified(policy, load_target("host"), load_recipe(None)).staging.staged.program
    deps = dependencies(program)
    return {name: deps[node] for name, node in zip(program.outputs, program.output_nodes(), strict=True)}


def test_a_row_depends_on_what_was_written_there():
    found = _sources_of(_written)
    assert found == {"action": {"base", "a", "b"}, "first": {"a"}, "last": {"b"}}


def test_an_axis_of_one_is_overwritten_whole():
    assert _sources_of(_whole) == {"action": {"a"}, "first": {"a"}, "last": {"b"}}
