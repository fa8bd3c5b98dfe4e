"""Runs passes one after the other and holds each to its contract. Must not know what a pass does.

Between two passes a program is verified as far as a walk over its nodes can; inside `verified("full")`, which the tests
open, the types of all values are computed again, and the invariants that take long are checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from vlacompile.compiler.graph.delay import EarlierFrame
from vlacompile.compiler.graph.dependency import output_dependencies
from vlacompile.compiler.graph.invariants import Invariant
from vlacompile.compiler.graph.program import Program, same_program, type_text
from vlacompile.compiler.graph.rolled_loop import size_of
from vlacompile.compiler.graph.verify_program import fault_of
from vlacompile.compiler.graph.work_bound import bounded
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlart.errors import PassError, VlaError

Verification = Literal["types", "full"]
_VERIFICATION: ContextVar[Verification] = ContextVar("verification", default="types")


@contextmanager
def verified(how: Verification) -> Iterator[None]:
    """Inside, programs are verified so after each pass."""
    token = _VERIFICATION.set(how)
    try:
        yield
    finally:
        _VERIFICATION.reset(token)


def run_passes(program: Program, passes: Sequence[GraphPass]) -> tuple[Program, tuple[str, ...]]:
    """The program after the passes, and what they did: their notes, each with its pass. Raises PassError for a pass
    that does not keep its contract, and StagingError for one that takes longer than in proportion to the program."""
    full = _VERIFICATION.get() == "full"
    notes: list[str] = []
    established: frozenset[Invariant] = frozenset()
    for i, p in enumerate(passes):
        check = _Check(p, passes[:i], full)
        check.requirements(program, established)
        before = _state(program)
        with bounded(p.name, size_of(program)):
            result = check.run(program)
        if not _is_same(before, _state(program)):
            raise check.error("it changes the program that it is given")
        check.result(program, result)
        established = established - p.destroys if result.changed else established
        check.invariants(result.program, p.ensures | established if full else p.ensures)
        established |= p.ensures
        program = result.program
        notes += [f"{p.name}: {note}" for note in result.notes]
    return program, tuple(notes)


def _state(program: Program) -> list:
    """The objects that a program consists of, and how often each constant was written to. A change in place gives other
    objects: a node's operands and type are replaced, never altered."""
    nodes = [part for n in program.graph.nodes
             for part in (n, n.op, n.name, n.target, n.args, n.kwargs, n.meta.get("val"))]
    constants = [part for name, tensor in program.constants.items()
                 for part in (name, tensor, None if tensor.is_inference() else tensor._version)]
    return [*nodes, *constants, *program.sources.items(), *program.inputs.items()]


def _is_same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        a is b or (isinstance(a, (str, int, tuple)) and a == b) for a, b in zip(one, other, strict=True))


class _Check:
    """What is asked of one pass. ran: those before it."""

    def __init__(self, p: GraphPass, ran: Sequence[GraphPass], full: bool):
        self.p, self.ran, self.full = p, ran, full

    def error(self, why: str) -> PassError:
        before = ", ".join(q.name for q in self.ran)
        return PassError(f"{self.p.name} does not keep its contract", why=why,
                         where=f"pass {self.p.name}" + (f", after {before}" if before else ", the first one"),
                         fix="report it with the policy: the compiler is wrong, not the policy")

    def run(self, program: Program) -> PassResult:
        """A crash names the pass; what the policy's user is told stays as it is."""
        try:
            result = self.p.run(program)
        except VlaError:
            raise
        except Exception as error:
            raise self.error(f"{type(error).__name__}: {error}") from error
        if not isinstance(result, PassResult):
            raise self.error(f"it gives a {type(result).__name__}, no PassResult")
        return result

    def requirements(self, program: Program, established: frozenset[Invariant]) -> None:
        for invariant in self._checked(self.p.requires if self.full else self.p.requires - established):
            if breach := invariant.breach(program):
                raise self.error(f"it requires {invariant}, and was given {breach}")

    def invariants(self, program: Program, expected: frozenset[Invariant]) -> None:
        for invariant in self._checked(expected):
            if breach := invariant.breach(program):
                says = "ensures" if invariant in self.p.ensures else "does not say that it destroys"
                raise self.error(f"it {says} {invariant}, and gives {breach}")

    def _checked(self, invariants: frozenset[Invariant]) -> list[Invariant]:
        return sorted((i for i in invariants if self.full or not i.costly), key=lambda i: i.name)

    def result(self, before: Program, result: PassResult) -> None:
        if result.changed == same_program(before, result.program):
            raise self.error("it says that it changed the program, and did not" if result.changed else
                             "it says that it changed nothing, and did")
        if result.changed:
            fault = fault_of(result.program, self.full) or self._interface(before, result.program)
            if fault is not None:
                raise self.error(fault)

    def _interface(self, before: Program, after: Program) -> str | None:
        """What the policy's user would see changed."""
        may = self.p.may_change
        kept = {n: s for n, s in before.sources.items()
                if not (isinstance(s, EarlierFrame) and Effect.DROPS_EARLIER_FRAMES in may)}
        if dict(after.sources) != kept or list(after.sources) != list(kept):
            return f"the sources were {', '.join(kept)} and are {', '.join(after.sources)}"
        if after.outputs != before.outputs:
            return f"the outputs were {', '.join(before.outputs)} and are {', '.join(after.outputs)}"
        old, new = before.placeholders(), after.placeholders()
        if list(new) != [n for n in old if n in kept]:
            return f"the inputs were {', '.join(n for n in old if n in kept)} and are {', '.join(new)}"
        if Effect.SOURCE_TYPES not in may:
            for name in new:
                if (was := type_text(old[name].meta["val"])) != (now := type_text(new[name].meta["val"])):
                    return f'the source "{name}" was {was} and is {now}'
        if Effect.OUTPUT_TYPES not in may:
            for name, a, b in zip(before.outputs, before.output_nodes(), after.output_nodes(), strict=True):
                if (was := type_text(a.meta["val"])) != (now := type_text(b.meta["val"])):
                    return f'the output "{name}" was {was} and is {now}'
        return self._dependencies(before, after)

    def _dependencies(self, before: Program, after: Program) -> str | None:
        old, new = output_dependencies(before), output_dependencies(after)
        for name in before.outputs:
            more, fewer = new[name] - old[name], old[name] - new[name]
            may = Effect.MORE_DEPENDENCIES in self.p.may_change and (not old[name] or more <= before.carried.keys())
            if more and not may:
                return f'the output "{name}" depends on {", ".join(sorted(more))}, and did not'
            if fewer and Effect.FEWER_DEPENDENCIES not in self.p.may_change:
                return f'the output "{name}" no longer depends on {", ".join(sorted(fewer))}'
        return None
