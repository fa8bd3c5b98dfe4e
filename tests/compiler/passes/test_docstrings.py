"""The Before and After of every pass's docstring are what it does."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest
import torch

from tests.compiler.passes.examples import EXAMPLES
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.history import frames_of
from vlacompile.compiler.graph.program import execute, program_text
from vlacompile.compiler.passes.batch_over_loop import BatchOverLoop
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.compiler.passes.graph_pass import GraphPass
from vlacompile.compiler.passes.pass_manager import run_passes, verified
from vlacompile.compiler.passes.unroll_loop import UnrollLoop
from vlacompile.compiler.staging.find_loop import find_loop


def documented(p: GraphPass, part: str) -> str:
    doc = inspect.cleandoc(type(p).__doc__)
    block = re.search(rf"^{part}:\n((?: {{4}}.*\n?)+)", doc, re.MULTILINE)
    return textwrap.dedent(block.group(1)).strip()


def as_documented(text: str) -> str:
    """Without the module path of weights, and with sources first."""
    lines = [line.replace("policy__", "") for line in text.strip().splitlines()]
    return "\n".join(sorted(lines, key=lambda line: (0 if " = source " in line else 1 if " = weight " in line else 2)))


@pytest.mark.parametrize("p", EXAMPLES, ids=lambda p: p.name)
def test_the_example_of_the_docstring(p):
    policy = EXAMPLES[p]()
    program = capture(policy)
    if isinstance(p, (BatchOverLoop, UnrollLoop)):
        program = find_loop(program).program
    assert as_documented(program_text(program)) == documented(p, "Before")
    result = p.run(program)
    assert as_documented(program_text(result.program)) == documented(p, "After")
    assert result.changed and not p.run(result.program).changed
    want = policy.infer(**policy.example_inputs)["action"]
    frames, past = frames_of(policy.sources, policy.example_inputs), {}
    if isinstance(p, DelayFrames):
        execute(result.program, {"x": frames["x@1"]}, past=past)
    got = execute(result.program, frames, past=past)[0]["action"]
    assert torch.allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("p", EXAMPLES, ids=lambda p: p.name)
def test_what_a_pass_does_to_its_example_keeps_its_contract(p):
    """Nothing runs before it: what it requires holds of its example too."""
    program = capture(EXAMPLES[p]())
    if isinstance(p, (BatchOverLoop, UnrollLoop)):
        program = find_loop(program).program
    with verified("full"):
        after, notes = run_passes(program, (p, p))
    assert after is not program and notes and all(n.startswith(f"{p.name}: ") for n in notes)
