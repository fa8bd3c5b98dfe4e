"""Loops of which only the first iterations were traced: to which of them ops belong, and how often these run.

The capture notes on an op in which iteration it was recorded; what a pass emits in its place takes that over.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node

from vlacompile.compiler.graph.program import ITERATION, Program
from vlacompile.policy.iterations import TRACED

_TYPICAL = TRACED - 2  # iteration that those left out are like: the first may be peeled, of the last less may be read


def times(program: Program, node: Node) -> int:
    """How often the op runs in the whole function for once in the trace."""
    number, iteration = node.meta.get(ITERATION, (None, None))
    return 1 + left_out(program, number) if iteration == _TYPICAL else 1


def left_out(program: Program, number: int | None) -> int:
    """Iterations of a loop that are not in the trace; None: of no such loop."""
    return 0 if number not in program.iterations else program.iterations[number] - TRACED


def loop_of(program: Program, nodes: Iterable[Node]) -> int | None:
    """The shortened loop over whose iterations these ops go; None if there is none, or if they are of several."""
    found: dict[int, set[int]] = {}
    for node in nodes:
        if ITERATION in node.meta:
            number, iteration = node.meta[ITERATION]
            found.setdefault(number, set()).add(iteration)
    number = next(iter(found), None)
    return number if len(found) == 1 and number in program.iterations and len(found[number]) > 1 else None
