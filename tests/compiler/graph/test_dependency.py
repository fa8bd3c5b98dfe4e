"""Which sources outputs depend on."""

from __future__ import annotations

import torch

from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph.delay import HISTORY
from vlacompile.compiler.graph.dependency import dependencies, output_dependencies
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.policy.policy import Policy, Source


def test_outputs_depend_on_what_their_values_do():
    program = capture(policies.dual_rate())
    deps = dependencies(program)
    assert output_dependencies(program) == {
        name: deps[node] for name, node in zip(program.outputs, program.output_nodes(), strict=True)}


def test_an_output_of_constants_depends_on_nothing():
    policy = Policy("constant", lambda x: {"action": x * 2, "limits": torch.ones(2) * 3}, {"x": Source("observation")},
                    {"x": torch.randn(1, 2)}, outputs=("action", "limits"))
    assert output_dependencies(capture(policy)) == {"action": {"x"}, "limits": frozenset()}


def test_a_source_is_one_however_old_its_frames_are():
    before = capture(policies.remember())
    after = DelayFrames().run(before).program
    assert output_dependencies(before) == output_dependencies(after) == {"action": {"tokens", "image", "state"}}
    assert HISTORY in dependencies(after)[after.output_nodes()[0]] and "image@1" in before.sources
