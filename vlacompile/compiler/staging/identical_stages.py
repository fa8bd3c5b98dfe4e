"""Stages that compute the same function with the same weights on different values: cameras that share an encoder.

One engine can serve all of them, and a precision that is chosen for one holds for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.staging.stages import Staged, StageGraph


def identical_stages(stages: Iterable[StageGraph]) -> dict[str, str]:
    """{stage: the first stage that is identical to it, or the stage itself}"""
    firsts: list[StageGraph] = []
    owners: dict[str, str] = {}
    for stage in stages:
        first = next((s for s in firsts if _alike(s, stage)), None)
        firsts += [stage] if first is None else []
        owners[stage.name] = stage.name if first is None else first.name
    return owners


def with_one_graph(staged: Staged) -> tuple[Staged, dict[str, str]]:
    """(`staged`, where identical stages share the graph and constants of the first of them; their identical_stages)"""
    owners, by_name = identical_stages(staged.stages), {s.name: s for s in staged.stages}
    return replace(staged, stages=tuple(with_graph_of(by_name[owners[s.name]], s) for s in staged.stages)), owners


def with_graph_of(first: StageGraph, stage: StageGraph) -> StageGraph:
    """`stage` with the graph and the constants of an identical stage. Layers keep the names that they have in `first`,
    inputs those that they have in `stage`."""
    if first.name == stage.name:
        return first
    graph, copied, ports = Graph(), {}, iter(stage.inputs)
    for node in first.graph.nodes:
        if node.op == "placeholder":
            copied[node] = graph.placeholder(next(ports).name)
            copied[node].meta = dict(node.meta)
        elif node.op == "output":
            graph.output(tuple(copied[n] for n in node.args[0]))
        else:
            copied[node] = graph.node_copy(node, copied.__getitem__)
    names = {n.name for n in graph.nodes if n.op == "call_function"}
    assert names == {n.name for n in first.graph.nodes if n.op == "call_function"}
    return replace(stage, graph=graph, constants=first.constants)


def _alike(a: StageGraph, b: StageGraph) -> bool:
    """Whether the graphs are equal node by node. Loops are never alike: their carried values have names."""
    if a.carries or b.carries or a.iterations != b.iterations or len(a.graph.nodes) != len(b.graph.nodes):
        return False
    if [p.mode for p in (*a.inputs, *a.outputs)] != [p.mode for p in (*b.inputs, *b.outputs)]:
        return False
    number: dict[Node, int] = {}
    for i, (x, y) in enumerate(zip(a.graph.nodes, b.graph.nodes, strict=True)):
        number |= {x: i, y: i}
        if x.op != y.op or _described(x, number) != _described(y, number):
            return False
        if x.op == "get_attr" and not _equal(a.constants[x.target], b.constants[y.target]):
            return False
    return True


def _described(node: Node, number: Mapping[Node, int]) -> str:
    args = map_arg((node.args, node.kwargs), lambda n: f"%{number[n]}")
    target = node.target if node.op == "call_function" else ""
    return f"{target} {args} {_shapes(node.meta.get('val'))}"


def _shapes(val) -> str:
    many = val if isinstance(val, tuple | list) else (val,)
    return str([(v.dtype, tuple(v.shape)) if isinstance(v, torch.Tensor) else v for v in many])


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or (a.is_meta == b.is_meta and not a.is_meta and a.dtype == b.dtype and torch.equal(a, b))
