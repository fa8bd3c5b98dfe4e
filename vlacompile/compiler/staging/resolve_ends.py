"""Removes the marks of loops whose end the data decides, once loops were looked for.

A loop that was found gets its `LoopEnd`. The values of one that was not are right as well, as an iteration behind the
end changes nothing: then all iterations run, and nobody is told whether the end was reached.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace

from torch.fx import Node

from vlacompile.compiler.graph.loop_end import FINISHED, LoopEnd, is_mark
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.policy.source_lines import line_of
from vlart.errors import StagingError


@dataclass(frozen=True)
class Resolved:
    program: Program
    notes: tuple[str, ...]


def resolve_ends(program: Program) -> Resolved:
    """Raises StagingError for a loop that must end and was not found."""
    if not any(map(is_mark, program.graph.nodes)):
        return Resolved(program, ())
    ends, notes = _ends(program)
    editor = ProgramEditor(program)
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        if is_mark(node):
            editor.replace(node, editor.map(node.args[0]))
        elif node in ends:
            loop = replace(node.target, end=ends[node])
            editor.replace(node, editor.emit(loop, editor.map_args(node.args), val=node.meta["val"]))
        else:
            editor.keep(node)
    return Resolved(editor.finish(), tuple(notes))


def _ends(program: Program) -> tuple[dict[Node, LoopEnd], list[str]]:
    ends: dict[Node, LoopEnd] = {}
    lost: dict[Node, Node] = {}  # condition -> a mark
    for node in program.graph.nodes:
        if node.target is not FINISHED:
            continue
        _, over, must_end, _ = node.args
        if over.target is operator.getitem and isinstance(over.args[0].target, RolledLoop):
            ends[over.args[0]] = LoopEnd(over.args[1], must_end)
        elif must_end and not program.iterations:
            raise StagingError(
                "a loop that must end is not found in the graph", where=f'policy "{program.name}", {line_of(node)}',
                why="its iterations are not alike, so nothing can tell at run time whether it reached its end",
                fix="make them alike (see the notes of `--stop-after find-stages`), or leave must_end out")
        else:
            lost.setdefault(over, node)
    notes = [f"{loop.name}: ends when the data says so, after at most {loop.target.iterations} iterations"
             for loop in ends]
    return ends, notes + [f"{line_of(mark)}: all iterations run, as they are not alike" for mark in lost.values()]
