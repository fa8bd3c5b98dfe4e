"""Refuses a declared end of a loop that says the same whatever the loop computes."""

from __future__ import annotations

from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.loop_end import BEGUN, FINISHED
from vlacompile.compiler.graph.program import Program
from vlacompile.policy.source_lines import line_of
from vlart.errors import CaptureError


def require_decided_ends(program: Program) -> None:
    """Raises CaptureError for a condition that no input reaches, or that no part of the loop's state does."""
    marks = [n for n in program.graph.nodes if n.target is FINISHED]
    if not marks:
        return
    deps, overs = dependencies(program), {mark.args[1]: mark for mark in marks}
    changing: set[Node] = set()
    for node in program.graph.nodes:
        if node.target is BEGUN or any(i in changing for i in node.all_input_nodes):
            changing.add(node)
    for over, mark in overs.items():
        condition = over.args[1]  # over = over of the iteration before | condition
        if deps[condition] and condition in changing:
            continue
        raise CaptureError(
            f"the end of a loop depends on nothing that {'the loop' if deps[condition] else 'an input'} changes",
            where=f'Policy "{program.name}", {line_of(condition if condition.op == "call_function" else mark)}',
            why="it would end after the first iteration or after the last, or always after the same",
            fix="compute `until` from the state that it is given, e.g. (state.token == END).all(); a fixed number of "
                "iterations is vc.iterations(K)")
