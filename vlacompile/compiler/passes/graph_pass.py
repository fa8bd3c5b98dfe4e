'''What a pass is. To write one, read this file.

A pass rewrites a traced program into one that computes the same. It is one file and one class under the same name,
`drop_double_negations.py` and `DropDoubleNegations`, a verb phrase in the terms that compilers use:

    NEG = torch.ops.aten.neg.default

    @dataclass(frozen=True)
    class DropDoubleNegations(GraphPass):
        """neg(neg(x)) becomes x.

        Before:
            %x = source "x" f32[1,4]
            %neg = neg(%x) f32[1,4]
            %neg_1 = neg(%neg) f32[1,4]
            %relu = relu(%neg_1) f32[1,4]
            return action=%relu
        After:
            %x = source "x" f32[1,4]
            %relu = relu(%x) f32[1,4]
            return action=%relu
        """

        def run(self, program: Program) -> PassResult:
            editor, count = ProgramEditor(program), 0
            for node in program.graph.nodes:
                if node.target is NEG and node.args[0].target is NEG:
                    editor.replace(node, editor.map(node.args[0].args[0]))
                    count += 1
                elif node.op != "output":
                    editor.keep(node)
            if not count:
                return PassResult(program, False)
            return PassResult(editor.finish(), True, (f"dropped {count} pairs",))

1. Its fields are its options, with defaults; it keeps nothing else. It never changes the program that it is given: it
   copies it with a `ProgramEditor`, which also leaves out what nothing reads any more.
2. A rewrite is exact in its type, or says in its docstring what it rounds. Where a rule does not fire for a reason that
   a person may ask for, a note says so: a line per thing done or left, which ends up in the manifest of a bundle.
3. `changed` is true: a pass that is run on its own result changes nothing (write the rule so that what it emits does
   not match it).
4. What it needs of a program that is not so of every program goes into `requires`, what it establishes into `ensures`,
   what it may break of what others established into `destroys` (`compiler/graph/invariants.py`; add what is missing).
   What it may change of what the policy's user sees goes into `may_change`: by default nothing.
5. A loop of yours over the graph that may take more steps than there are nodes says `spend()`.
6. It has its place in `pass_list.py`, and its example in `tests/compiler/passes/examples.py`: the tests then compare
   Before and After of the docstring with what it does, and run it on every policy and random program that there is.

`pass_manager.py` runs passes and holds each to this. What several passes share is in `rules/`.
'''

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from vlacompile.compiler.graph.invariants import NO_COMMON_SUBEXPRESSIONS, Invariant
from vlacompile.compiler.graph.program import Program


class Effect(Enum):
    """What a pass may change of a program's interface, which otherwise stays: the sources and the outputs, in name,
    order, type and shape, and the sources that each output depends on."""

    DROPS_EARLIER_FRAMES = "sources that are earlier frames of others leave"
    SOURCE_TYPES = "sources have other types"
    OUTPUT_TYPES = "outputs have other types or shapes"
    FEWER_DEPENDENCIES = "an output depends on fewer sources: what it did not use is read no more"
    MORE_DEPENDENCIES = ("an output that depends on no source depends on one, and one that the next step takes on what "
                         "is carried")


@dataclass(frozen=True)
class PassResult:
    """program: the rewritten program (the input itself when nothing changed).
    changed: whether anything changed; running a pass on its own result says False.
    notes: one line per thing done, or per reason why a rule did not fire."""

    program: Program
    changed: bool
    notes: tuple[str, ...] = field(default=())


class GraphPass(ABC):
    """A rewrite of programs; a frozen dataclass whose fields are its options."""

    requires: ClassVar[frozenset[Invariant]] = frozenset()
    ensures: ClassVar[frozenset[Invariant]] = frozenset()
    # What a pass emits may be there already.
    destroys: ClassVar[frozenset[Invariant]] = frozenset({NO_COMMON_SUBEXPRESSIONS})
    may_change: ClassVar[frozenset[Effect]] = frozenset()

    @property
    def name(self) -> str:
        """In notes and errors."""
        return type(self).__name__

    @abstractmethod
    def run(self, program: Program) -> PassResult:
        """The rewritten program. Must not change its argument. Raises StagingError where the policy is at fault."""
