"""Constant folding: values that depend on no source, computed now."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.program import Program, execute
from vlacompile.files.mapped import mapped


def fold(program: Program, nodes: frozenset[Node]) -> dict[Node, torch.Tensor]:
    """Compute constant values now. What is made of a weight without content is a shape."""
    shapes = _without_content(program) & nodes
    return {n: torch.empty_like(n.meta["val"], device="meta") for n in shapes} | _compute(program, nodes - shapes)


def _without_content(program: Program) -> set[Node]:
    found: set[Node] = set()
    for node in program.graph.nodes:
        empty = node.op == "get_attr" and program.constants[node.target].is_meta
        if empty or any(i in found for i in node.all_input_nodes):
            found.add(node)
    return found


def _compute(program: Program, nodes: frozenset[Node]) -> dict[Node, torch.Tensor]:
    if not nodes:
        return {}
    graph, copied = Graph(), {}
    needed, stack = set(), list(nodes)
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.all_input_nodes)
    ordered = [n for n in program.graph.nodes if n in needed]
    for n in ordered:
        copied[n] = graph.node_copy(n, lambda m: copied[m])
    wanted = [n for n in ordered if n in nodes]
    graph.output(tuple(copied[n] for n in wanted))
    names = tuple(n.name for n in wanted)
    result, _ = execute(replace(program, graph=graph, outputs=names, inputs={}, sources={}), {})
    return {n: mapped(result[n.name].contiguous()) for n in wanted}
