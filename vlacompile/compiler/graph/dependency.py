"""deps(value): the set of sources that a value depends on, the idea that carries the compiler."""

from __future__ import annotations

from torch.fx import Node

from vlacompile.compiler.graph.delay import HISTORY, is_delay
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.work_bound import spend


def dependencies(program: Program) -> dict[Node, frozenset[str]]:
    """{node: names of the sources it depends on; HISTORY where earlier observations are among them}."""
    deps: dict[Node, frozenset[str]] = {}
    for node in program.graph.nodes:
        spend(1 + len(node.all_input_nodes))
        if node.op == "placeholder":
            deps[node] = frozenset({program.inputs[node.name]})
        else:
            deps[node] = frozenset().union(*(deps[i] for i in node.all_input_nodes))
        if is_delay(node):
            deps[node] |= {HISTORY}
    return deps
