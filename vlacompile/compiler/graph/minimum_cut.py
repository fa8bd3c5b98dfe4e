"""Moves the boundary between stages to where it is cheap: a minimum cut over bytes.

Values that are cheap to recompute and large to keep (broadcasts, masks, casts) are recomputed by
their consumers; everything else is computed once, where its sources allow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import node_bytes
from vlacompile.compiler.graph.work_bound import spend

OUT_OF_REACH = 1 << 60  # bytes
SEVERAL = 1 << 90  # more than any number of values that are out of reach


@dataclass(frozen=True)
class CutProblem:
    """One producing group.

    nodes: its values, in execution order.
    consumed: those that something outside the group reads.
    pinned: those that must be computed here (costly ops, policy outputs, loop operands).
    cost: bytes to keep a value.
    """

    nodes: tuple[Node, ...]
    consumed: Collection[Node]
    pinned: Collection[Node]
    cost: Callable[[Node], int]


def bytes_to_keep(node: Node) -> int:
    """bf16, to which a policy may round on purpose, is no type of a value between stages, and several results are no
    value at all: each of them is one."""
    val = node.meta["val"]
    if isinstance(val, (list, tuple)):
        return SEVERAL
    return OUT_OF_REACH if isinstance(val, torch.Tensor) and val.dtype is torch.bfloat16 else node_bytes(node)


def recomputed_by_consumers(problem: CutProblem) -> set[Node]:
    """The values that consumers recompute. Of equally cheap cuts, the one nearest to the consumers:
    least work at the higher rate."""
    inside = set(problem.nodes)
    if not any(n in inside for n in problem.consumed):
        return set()
    near = _near(problem, inside)
    made = _made(problem, inside, near)
    return {n for n in problem.nodes if ("in", n) not in made}


def _near(problem: CutProblem, inside: set[Node]) -> set[Node]:
    """What consumers read, and through what could be recomputed for that: only there is anything to decide."""
    stack, near = [n for n in problem.consumed if n in inside], set()
    while stack:
        node = stack.pop()
        spend()
        if node not in near:
            near.add(node)
            stack += () if node in problem.pinned else [i for i in node.all_input_nodes if i in inside]
    return near


def _made(problem: CutProblem, inside: set[Node], near: set[Node]) -> set[tuple[str, Node]]:
    """The side of "make" of the smallest cut: ("in", n) where n is computed by the group."""
    # The reversed network: from the consumers ("use") back to what must be computed here ("make").
    # The consumers' side of the first minimum cut found from "use" is the smallest one.
    net = nx.DiGraph()
    net.add_node("use")
    net.add_node("make")
    for node in (n for n in problem.nodes if n in near):
        net.add_edge(("out", node), ("in", node), capacity=problem.cost(node))
        if node in problem.pinned:
            net.add_edge(("in", node), "make")
        else:
            for i in node.all_input_nodes:
                if i in inside:
                    net.add_edge(("in", node), ("out", i))
        if node in problem.consumed:
            net.add_edge("use", ("out", node))
    _, (_, made) = nx.minimum_cut(net, "use", "make")
    for node in problem.nodes:  # what no flow passes through is on the side that it leads to
        spend(1 + len(node.all_input_nodes))
        if node not in near and (node in problem.pinned or any(("out", i) in made for i in node.all_input_nodes)):
            made |= {("in", node), ("out", node)} if problem.cost(node) > 0 else {("in", node)}
    return made


def place(nodes: tuple[Node, ...], group, recomputed: set[Node], homes: dict[Node, frozenset]) -> None:
    """Record in `homes` where each value of `group` is computed: in `group`, or, when its consumers
    recompute it, wherever a reader of it is. Readers must have been placed before."""
    for node in reversed(nodes):
        if node in recomputed:
            homes[node] = frozenset().union(*(homes[u] for u in node.users if u in homes))
        else:
            homes[node] = frozenset({group})


def flow_order(groups: Mapping, edges: Collection[tuple]) -> list:
    """Groups so that producers come before consumers; ties by first position."""
    graph = nx.DiGraph()
    graph.add_nodes_from(groups)
    graph.add_edges_from((a, b) for a, b in edges if a != b)
    return list(nx.lexicographical_topological_sort(graph, key=lambda g: groups[g]))
