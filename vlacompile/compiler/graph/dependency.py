"""deps(value): the set of sources that a value depends on, the idea that carries the compiler."""

from __future__ import annotations

from torch.fx import Node

from vlacompile.compiler.graph.delay import HISTORY, EarlierFrame, is_delay
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


def output_dependencies(program: Program) -> dict[str, frozenset[str]]:
    """{output: the sources that it depends on}. A source is one, however old its frames are."""
    bit: dict[str, int] = {}
    reached: dict[Node, int] = {}  # a set of sources as bits: no set per value is made
    for node in program.graph.nodes:
        if node.op == "placeholder":
            source = program.sources.get(program.inputs[node.name])
            name = source.of if isinstance(source, EarlierFrame) else program.inputs[node.name]
            reached[node] = bit.setdefault(name, 1 << len(bit))
        else:
            bits = 0
            for i in node.all_input_nodes:
                bits |= reached[i]
            reached[node] = bits
    return {name: frozenset(source for source, b in bit.items() if reached[node] & b)
            for name, node in zip(program.outputs, program.output_nodes(), strict=True)}
