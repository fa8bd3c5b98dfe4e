"""Finds the unrolled denoising loop in a trace and re-rolls it.

The values that depend on the carried sample divide into K structurally identical bodies. A first iteration that is
computed differently is peeled: it stays in front of the loop. `loop_candidates.py` finds where bodies may lie,
`roll_loop.py` checks whether they are equal.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Node

from vlacompile.compiler.graph import loop_end
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.staging.extrapolate_tables import CannotExtrapolate
from vlacompile.compiler.staging.loop_candidates import Candidate, Trace, candidates, trace_of
from vlacompile.compiler.staging.roll_loop import NoLoop, NothingCarried, Roll, rebuild, roll, shortened, total_of

_EFFORT = 136  # nodes compared in vain, in units of the trace's length, before the search is given up
_PLACE = "place"  # in the meta of a node: where it was in the graph before any loop was found


@dataclass(frozen=True)
class LoopSearch:
    """program: with its loops re-rolled, or the unchanged input. notes: what was found, or why nothing was."""

    program: Program
    found: bool
    notes: tuple[str, ...]


def find_loop(program: Program) -> LoopSearch:
    """Re-rolls loops whose end is declared, the loop of every source with update class "step" (noise to be denoised),
    then loops that start from any other value (tokens that are decoded one after the other)."""
    notes: list[str] = []
    given = program
    before = program = _numbered(program)
    for number in loop_end.numbers(program):
        rolled, found_notes = _first(program, trace_of(loop_end.between(program, number)))
        notes += [f"declared: {note}" for note in found_notes]
        program = rolled or program
    for name in [n for n in program.placeholders() if program.sources[n].update == "step"]:
        deps = dependencies(program)
        trace = trace_of(_as_written([n for n in program.graph.nodes if _is_op(n) and name in deps[n]]))
        rolled, found_notes = _first(program, trace)
        notes += [f"from {name}: {note}" for note in found_notes]
        program = rolled or program
    while True:
        rolled, found_notes = _from_anything(program)
        notes += found_notes
        if rolled is None and program is before:
            return LoopSearch(given, False, tuple(notes or ["no body is repeated"]))
        if rolled is None:
            return LoopSearch(program, True, tuple(notes))
        program = rolled


def _numbered(program: Program) -> Program:
    """A copy whose nodes know their places."""
    editor = ProgramEditor(program)
    for i, node in enumerate(program.graph.nodes):
        if node.op != "output":
            editor.copy(node).meta[_PLACE] = i
    return editor.finish()


def _as_written(nodes: list[Node]) -> list[Node]:
    """In the order of the graph before any loop was found: a loop comes ahead of what reads it, so that the first
    iteration of another is taken apart."""
    return sorted(nodes, key=lambda n: n.meta.get(_PLACE, -1))


def _from_anything(program: Program) -> tuple[Program | None, list[str]]:
    """Re-rolls loops among the values of one dependency set; they must use the same weights at least three times, in
    the trace or in the iterations that were left out of it. Those are looked for first."""
    deps, traces = dependencies(program), {}
    for node in program.graph.nodes:
        if _is_op(node) and deps[node]:
            traces.setdefault(deps[node], []).append(node)
    rolls: dict[Roll, str] = {}
    for sources, nodes in traces.items():
        if not any(n.op == "get_attr" and n.target in program.parameters for t in nodes for n in t.all_input_nodes):
            continue
        trace, text = trace_of(_as_written(nodes)), ", ".join(sorted(sources))
        if program.iterations:
            rolled, found_notes = _first(program, trace, only_shortened=True)
            if rolled is not None:
                return rolled, [f"of {text}: {found_notes[-1]}"]
            continue
        taken = [False] * len(nodes)
        for found in _loops(program, trace, 3, [], taken):
            begin, end = found.candidate.start, found.candidate.start + found.candidate.nodes
            taken[begin: end] = [True] * (end - begin)
            rolls[found] = f"of {text}: {_summary(program, found)}"
    while rolls:
        try:
            return rebuild(program, list(rolls)), list(rolls.values())
        except NoLoop as reason:
            del rolls[reason.loop]
    return None, []


def _is_op(node: Node) -> bool:
    """Whether the node is a plain op: not a loop that was found before, nor one of its results, nor a mark."""
    if node.op != "call_function" or isinstance(node.target, RolledLoop) or loop_end.is_mark(node):
        return False
    return not (node.target is operator.getitem and isinstance(node.args[0].target, RolledLoop))


def _first(program: Program, trace: Trace, only_shortened: bool = False) -> tuple[Program | None, list[str]]:
    """(the program with its longest loop re-rolled, or None; which candidates were refused and why). only_shortened:
    the longest of those with iterations that are not in the trace."""
    notes: list[str] = []
    for found in _loops(program, trace, 2, notes, [False] * len(trace.nodes)):
        if only_shortened and shortened(program, found) is None:
            continue
        try:
            return rebuild(program, [found]), [*notes, _summary(program, found)]
        except (NoLoop, CannotExtrapolate) as reason:
            notes.append(_refused(found.candidate, reason))
    return None, [*notes, f"no repeated body in {len(trace.nodes)} nodes"]


def _loops(program: Program, trace: Trace, fewest: int, notes: list[str], taken: list[bool]) -> Iterator[Roll]:
    """Loops in a trace, the longest first. notes: receives why other candidates were refused. taken: marks nodes of the
    trace that already belong to a loop."""
    effort = _EFFORT * len(trace.nodes)
    # (end, period) of bodies that are independent of one another: then so are groups of several such bodies
    independent = [(0, 1)] * len(trace.nodes)
    for c in candidates(program.parameters, trace, fewest):
        end, period = independent[c.start]
        if c.start + c.nodes <= end and c.period % period == 0:
            continue
        if taken[c.start] or taken[c.start + c.nodes - 1]:  # longest first: no earlier loop lies strictly inside
            continue
        effort -= c.nodes
        if effort < 0:
            return
        try:
            found = roll(trace, c)
        except NoLoop as reason:
            notes.append(_refused(c, reason))
            if isinstance(reason, NothingCarried):
                independent[c.start: c.start + c.nodes] = [(c.start + c.nodes, c.period)] * c.nodes
        else:
            yield found


def _refused(c: Candidate, reason: Exception) -> str:
    return f"{c.iterations} x {c.period} nodes refused: {reason}"


def _summary(program: Program, found: Roll) -> str:
    return f"{total_of(program, found)} iterations of {found.candidate.period} nodes"
