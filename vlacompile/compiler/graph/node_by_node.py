"""Runs a graph in PyTorch and tells every value. Owns what is found out of a node once, however often it runs: the body
of a loop runs once per iteration. Must not know stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

Tell = Callable[[Node, object], object]  # (node, its result); a returned value replaces the result, None keeps it
_Values = list
_Fetch = Callable[[_Values], object]


class NodeByNode:
    """graph: of functions and constants; stays as it is. constants: {name: tensor} of its get_attr nodes."""

    def __init__(self, graph: Graph, constants: Mapping[str, torch.Tensor]):
        self._nodes = [n for n in graph.nodes if n.op != "output"]
        self._place = {n: i for i, n in enumerate(self._nodes)}
        self._output = self._fetch(graph.output_node().args[0])
        last = {self._place[used]: i for i, n in enumerate(self._nodes) for used in (n, *n.all_input_nodes)}
        for node in graph.output_node().all_input_nodes:
            last.pop(self._place[node], None)
        ended: list[list[int]] = [[] for _ in self._nodes]  # of a node: values that none behind it reads
        for place, user in last.items():
            ended[user].append(place)
        self._steps = [(n, None if n.op == "placeholder" else self._call(n, constants), tuple(places))
                       for n, places in zip(self._nodes, ended, strict=True)]

    def run(self, inputs: Iterable[torch.Tensor], tell: Tell) -> object:
        """inputs: in the order of the placeholders. What the graph returns."""
        values: _Values = [None] * len(self._nodes)
        given = iter(inputs)
        for place, (node, call, ended) in enumerate(self._steps):
            result = next(given) if call is None else call(values)
            told = tell(node, result)
            values[place] = result if told is None else told
            for other in ended:
                values[other] = None
        return self._output(values)

    def _call(self, node: Node, constants: Mapping[str, torch.Tensor]) -> _Fetch:
        if node.op == "get_attr":
            constant = constants[node.target]
            return lambda values: constant
        assert node.op == "call_function", node.op
        target, args = node.target, [self._fetch(a) for a in node.args]
        named = {name: self._fetch(a) for name, a in node.kwargs.items()}
        if named:
            return lambda values: target(*[a(values) for a in args], **{n: a(values) for n, a in named.items()})
        return lambda values: target(*[a(values) for a in args])

    def _fetch(self, arg: object) -> _Fetch:
        """What an operand is, given the values so far."""
        if isinstance(arg, Node):
            place = self._place[arg]
            return lambda values: values[place]
        if not _has_nodes(arg):
            return lambda values: arg
        if isinstance(arg, (list, tuple)):
            parts, kind = [self._fetch(a) for a in arg], tuple if isinstance(arg, tuple) else list
            return lambda values: kind(part(values) for part in parts)
        return lambda values: map_arg(arg, lambda node: values[self._place[node]])


def _has_nodes(arg: object) -> bool:
    found: list[Node] = []
    map_arg(arg, lambda node: found.append(node) or node)
    return bool(found)
