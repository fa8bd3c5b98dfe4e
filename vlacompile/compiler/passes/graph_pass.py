"""What every pass returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlacompile.compiler.graph.program import Program


@dataclass(frozen=True)
class PassResult:
    """program: the rewritten program (the input itself when nothing changed).
    changed: whether anything changed; running a pass on its own result says False.
    notes: one line per thing done, or per reason why a rule did not fire."""

    program: Program
    changed: bool
    notes: tuple[str, ...] = field(default=())
