"""What is said of programs, against the passes that establish it."""

from __future__ import annotations

import pytest

from tests.compiler.passes.examples import EXAMPLES
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.graph import invariants
from vlacompile.compiler.graph.invariants import Invariant
from vlacompile.compiler.staging.find_loop import find_loop

ESTABLISHED = [(p, i) for p in EXAMPLES for i in sorted(p.ensures, key=lambda i: i.name)]
STATED = {i for i in vars(invariants).values() if isinstance(i, Invariant)}


@pytest.mark.parametrize(("p", "invariant"), ESTABLISHED, ids=[f"{p.name}-{i.name}" for p, i in ESTABLISHED])
def test_the_pass_that_ensures_it_makes_it_so(p, invariant):
    program = capture(EXAMPLES[p]())
    if invariant is invariants.LOOPS_UNROLLED:
        program = find_loop(program).program
    assert invariant.breach(program) is not None
    assert invariant.breach(p.run(program).program) is None


def test_every_invariant_is_one_that_a_pass_ensures():
    assert {i for _, i in ESTABLISHED} == STATED
    assert len({i.name for i in STATED}) == len(STATED) and all(getattr(invariants, i.name) is i for i in STATED)
