"""A loop whose end the data decides, as a graph has it: ops that mark what it starts from and what it gives, which
`vlacompile.iterate` records, and once it is a loop of the graph its `LoopEnd`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch.fx import Node

from vlacompile.compiler.graph.program import Program
from vlacompile.policy import iterate

BEGUN = iterate.begun._opoverload
FINISHED = iterate.finished._opoverload


@dataclass(frozen=True)
class LoopEnd:
    """The loop's carried value number `carried`, bool[1], says after an iteration whether it was the last: the others
    would leave all carried values as they are. must_end: the values are of no use where it never is true."""

    carried: int
    must_end: bool


def is_mark(node: Node) -> bool:
    """Whether the op gives its first operand, and is there for what it says of the loop."""
    return node.target is BEGUN or node.target is FINISHED


def is_variable(node: Node, variables: Collection[Node]) -> bool:
    """Whether a value is none that is known when the policy is compiled: a source, or computed from one of `variables`,
    or what such a loop starts from, so that its first iteration is written as the others are."""
    return node.op == "placeholder" or node.target is BEGUN or any(i in variables for i in node.all_input_nodes)


def numbers(program: Program) -> list[int]:
    """Of the loops whose marks are in the graph."""
    return sorted({n.args[1] for n in program.graph.nodes if n.target is BEGUN})


def between(program: Program, number: int) -> list[Node]:
    """The ops from what loop `number` starts from to what it gives, in graph order."""
    inside: set[Node] = set()
    for node in program.graph.nodes:
        begins = node.target is BEGUN and node.args[1] == number
        if begins or (node.op == "call_function" and not is_mark(node) and not inside.isdisjoint(node.all_input_nodes)):
            inside.add(node)
    return [n for n in program.graph.nodes if n in inside and not is_mark(n)]
