"""Runs passes one after the other. Must not know what a pass does."""

from __future__ import annotations

from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import size_of
from vlacompile.compiler.graph.work_bound import bounded


def run_passes(program: Program, passes: tuple) -> tuple[Program, tuple[str, ...]]:
    """The program after the passes, and what they did: their notes, each with its pass. Raises StagingError for a pass that
    takes longer than in proportion to the program."""
    notes: list[str] = []
    for p in passes:
        with bounded(type(p).__name__, size_of(program)):
            result = p.run(program)
        program = result.program
        notes += [f"{type(p).__name__}: {note}" for note in result.notes]
    return program, tuple(notes)
