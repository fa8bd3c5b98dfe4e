"""The last rewrite of a stage's graph before it is translated: ops without a function in torch.onnx's table become
others by PyTorch's decompositions, and operands of mixed types are converted as PyTorch does it inside of an op.

What becomes of an op depends on the op, its arguments and the types of its operands alone, so that it is found out once
per stage for all ops that are alike. `torch.onnx.export` traces the whole graph three times for the same. Must not know
ONNX.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.emit.onnx.promote_operands import NAME, promoted
from vlacompile.compiler.emit.onnx.translate import NotTranslated
from vlacompile.compiler.graph.program import to_meta
from vlacompile.compiler.passes.rules.inline_graph import signature, trace

_ATEN = torch.ops.aten
# Values have no strides: each of these has the same translation.
_VIEW = _ATEN.view.default
_RESHAPES = frozenset({_ATEN.reshape.default, _ATEN._unsafe_view.default, _VIEW})


def lower_ops(graph: Graph, translated: Callable, decompositions: Mapping[torch._ops.OpOverload, Callable]) -> Graph:
    """A graph of equal values. Nodes are named by their op and numbered, whatever they were called: stages that are
    alike have the same names. translated: whether an op is in the table. decompositions: for ops that are not.
    Raises NotTranslated."""
    lowering = _Lowering(translated, decompositions)
    for node in graph.nodes:
        lowering.take(node)
    return lowering.graph


class _Lowering:
    def __init__(self, translated: Callable, decompositions: Mapping[torch._ops.OpOverload, Callable]):
        self.translated, self.decompositions = translated, decompositions
        self.graph = Graph()
        self.new: dict[Node, object] = {}
        self.known: dict[str, Graph | None] = {}  # by signature: what stands for an op; None: the op itself

    def take(self, node: Node) -> None:
        if node.op != "call_function":
            self.new[node] = self.graph.node_copy(node, self.new.__getitem__)
        elif node.target is operator.getitem:
            self.new[node] = self._part(node)
        elif (lower := self._lower(node)) is None:
            self.new[node] = self._emit(node, node.target, map_arg(node.args, self.new.__getitem__),
                                        map_arg(node.kwargs, self.new.__getitem__), node.meta["val"])
        else:
            self.new[node] = self._inline(node, lower)

    def _part(self, node: Node):
        whole = self.new[node.args[0]]
        if isinstance(whole, (list, tuple)):
            return whole[node.args[1]]
        return self._emit(node, operator.getitem, (whole, node.args[1]), {}, node.meta["val"])

    def _emit(self, like: Node, target, args: tuple, kwargs: dict, val, name: str = "") -> Node:
        if target in _RESHAPES:
            target, args = _VIEW, (args[0], list(val.shape))
        node = self.graph.create_node("call_function", target, args, kwargs, name=name or _name(target))
        node.meta = {"val": val, "stack_trace": like.meta.get("stack_trace", "")}
        return node

    def _inline(self, node: Node, lower: Graph):
        operands, inner = iter(node.all_input_nodes), {}
        for n in lower.nodes:
            if n.op == "placeholder":
                inner[n] = self.new[next(operands)]
            elif n.op == "call_function":
                inner[n] = self._emit(node, n.target, map_arg(n.args, inner.__getitem__),
                                      map_arg(n.kwargs, inner.__getitem__), to_meta(n.meta["val"]),
                                      n.meta.get(NAME, ""))
            elif n.op == "output":
                return map_arg(n.args[0], inner.__getitem__)
        raise AssertionError("a graph ends with its output")

    def _lower(self, node: Node) -> Graph | None:
        key = signature(node)
        if key not in self.known:
            try:
                self.known[key] = self._found(node)
            except Exception as error:  # whatever PyTorch's function for the op raises
                raise NotTranslated(node, str(error)) from error
        return self.known[key]

    def _found(self, node: Node) -> Graph | None:
        found = None
        if not self.translated(node.target) or (is_composite_view(node.target) and node.target not in _RESHAPES):
            found = trace(node, self.decompositions.get(node.target, node.target), self.decompositions)
        return _with_conversions(node, found)


def is_composite_view(target) -> bool:
    """Whether the op stands for others, and gives a view: PyTorch's own tracing keeps no such op."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.returns and any(
        r.alias_info is not None for r in target._schema.returns) and \
        torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")


def _with_conversions(node: Node, graph: Graph | None) -> Graph | None:
    """`graph`, which stands for `node` (None: the op itself), with PyTorch's conversions of operands as ops."""
    parts = _alone(node) if graph is None else graph
    return parts if promoted(parts) else graph


def _name(target) -> str:
    return target._opname if isinstance(target, torch._ops.OpOverload) else target.__name__


def _alone(node: Node) -> Graph:
    """The op of `node` with a placeholder for each of its operands."""
    graph, new = Graph(), {}
    for i, operand in enumerate(node.all_input_nodes):
        new[operand] = graph.placeholder(f"x{i}")
        new[operand].meta["val"] = operand.meta["val"]
    made = graph.create_node("call_function", node.target, map_arg(node.args, new.__getitem__),
                             map_arg(node.kwargs, new.__getitem__))
    made.meta["val"] = node.meta["val"]
    graph.output(made)
    return graph
