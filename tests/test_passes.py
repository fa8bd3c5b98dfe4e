"""Every pass: the example of its docstring is run, it is idempotent, and it keeps the function."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest
import torch

from tests import policies
from vlacompile.capture.export import capture
from vlacompile.capture.program import execute, program_text
from vlacompile.passes.drop_identities import DropIdentities
from vlacompile.passes.merge_common_subexpressions import MergeCommonSubexpressions
from vlacompile.passes.split_linear_over_concat import SplitLinearOverConcat
from vlacompile.pipeline import PASSES
from vlacompile.policy import Policy, Source

X = {"x": torch.randn(1, 4)}


class Split(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, a, b):
        return {"action": torch.nn.functional.linear(torch.cat([a, b], 1), self.w)}


def _dropout(x):
    return {"action": torch.relu(torch.nn.functional.dropout(x, 0.1, False))}


def _twice(x):
    return {"action": torch.relu(x) + torch.relu(x)}


def _example(kind) -> Policy:
    if kind is SplitLinearOverConcat:
        inputs = {"a": torch.randn(1, 2, 4), "b": torch.randn(1, 3, 4)}
        return Policy("example", Split().eval(), {"a": Source("task"), "b": Source("observation")}, inputs)
    function = {DropIdentities: _dropout, MergeCommonSubexpressions: _twice}[kind]
    return Policy("example", function, {"x": Source("observation")}, X)


def _documented(kind, part: str) -> str:
    doc = inspect.cleandoc(kind.__doc__)
    block = re.search(rf"^{part}:\n((?: {{4}}.*\n?)+)", doc, re.MULTILINE)
    return textwrap.dedent(block.group(1)).strip()


@pytest.mark.parametrize("kind", sorted({type(p) for p in PASSES}, key=lambda k: k.__name__), ids=lambda k: k.__name__)
def test_the_example_of_the_docstring(kind):
    policy = _example(kind)
    program = capture(policy)
    before = _weights_renamed(program_text(program))
    assert before == _documented(kind, "Before")
    result = kind().run(program)
    assert _weights_renamed(program_text(result.program)) == _documented(kind, "After")
    assert result.changed and not kind().run(result.program).changed
    want = policy.infer(**policy.example_inputs)["action"]
    got = execute(result.program, policy.example_inputs)[0]["action"]
    assert torch.allclose(got, want, atol=1e-6)


def _weights_renamed(text: str) -> str:
    """Drop the module path of weights and put sources first, as the docstrings do."""
    lines = [re.sub(r"policy__(\w+)", r"\1", line) for line in text.strip().splitlines()]
    return "\n".join(sorted(lines, key=lambda line: (0 if " = source " in line else 1 if " = weight " in line else 2)))


def test_passes_do_not_mutate_their_input():
    program = capture(policies.late_fusion())
    before = program_text(program)
    for p in PASSES:
        p.run(program)
    assert program_text(program) == before


@pytest.mark.parametrize("make", [policies.late_fusion, policies.flow])
def test_passes_keep_the_function(make):
    policy = make()
    program = capture(policy)
    for p in PASSES:
        program = p.run(program).program
    want = policy.infer(**policy.example_inputs)["action"]
    got = execute(program, policy.example_inputs)[0]["action"]
    assert (got - want).abs().max() <= 2e-6


def test_a_linear_over_features_is_left_alone():
    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Linear(8, 4)

        def forward(self, a, b):
            return {"action": self.mix(torch.cat([a, b], -1))}

    policy = Policy("features", Features().eval(), {"a": Source("task"), "b": Source("observation")},
                    {"a": torch.randn(1, 4), "b": torch.randn(1, 4)})
    assert not SplitLinearOverConcat().run(capture(policy)).changed
