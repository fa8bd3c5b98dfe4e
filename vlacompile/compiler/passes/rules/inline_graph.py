"""Puts what a function does with an op's operands in the op's place. Must not know which functions there are."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import Program, ProgramEditor, op_name, to_meta, type_text

_ATEN = torch.ops.aten
# Values have no strides: what is a view here may be read from what is none there.
_RESHAPES = frozenset({_ATEN.view.default, _ATEN._unsafe_view.default})


def trace(node: Node, function: Callable, table: Mapping[torch._ops.OpOverload, Callable]) -> Graph | None:
    """The graph of `function` on the operands of `node`, a placeholder for each of `node.all_input_nodes`. table:
    functions for ops that it calls. None: an operand is no tensor, or the function cannot be traced at these shapes.
    The function must hold no tensors of its own."""
    operands = node.all_input_nodes
    if not all(isinstance(n.meta["val"], torch.Tensor) for n in operands):
        return None

    def call(*values):
        value = dict(zip(operands, values, strict=True)).__getitem__
        result = function(*map_arg(node.args, value), **map_arg(node.kwargs, value))
        return tuple(result) if isinstance(result, tuple) else result  # a named one would be made by an op of its own

    with FakeTensorMode(), torch.no_grad():
        vals = [torch.empty(n.meta["val"].shape, dtype=n.meta["val"].dtype) for n in operands]
        try:
            graph = make_fx(call, decomposition_table=dict(table))(*vals)
            if any(_writes(n) for n in graph.graph.nodes):  # in place, as some of PyTorch's functions do
                graph = make_fx(functionalize(graph, remove="mutations"), decomposition_table=dict(table))(*vals)
        except (NotImplementedError, RuntimeError):
            return None
    for n in reversed(graph.graph.nodes):
        if n.op not in ("placeholder", "output") and not n.users:  # assertions too
            graph.graph.erase_node(n)
    return graph.graph


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def signature(node: Node) -> str:
    """What `trace` depends on: the op, its arguments, and the types of its operands."""
    names = {n: f"%{i} {type_text(n.meta['val'])}" for i, n in enumerate(node.all_input_nodes)}
    return f"{node.target} {map_arg(node.args, names.__getitem__)} {map_arg(node.kwargs, names.__getitem__)}"


def inline(editor: ProgramEditor, node: Node, graph: Graph):
    """Emit `graph`, which `trace` made of `node`. Returns what stands for its result: a node, or nodes and None."""
    operands, new = iter(node.all_input_nodes), {}
    for n in graph.nodes:
        if n.op == "placeholder":
            new[n] = editor.map(next(operands))
        elif n.op == "call_function":
            args, kwargs = map_arg(n.args, new.__getitem__), map_arg(n.kwargs, new.__getitem__)
            target = _ATEN.reshape.default if n.target in _RESHAPES else n.target
            new[n] = editor.emit(target, args, kwargs, like=node, val=to_meta(n.meta["val"]))
        elif n.op == "output":
            return map_arg(n.args[0], new.__getitem__)
    raise AssertionError("a graph ends with its output")


class Parts:
    """Of ops with several results that were replaced: what each `getitem` of them is now."""

    def __init__(self, editor: ProgramEditor):
        self._editor, self._results = editor, {}

    def replace(self, node: Node, result) -> None:
        """result: what stands for the value of `node`, a node, or a sequence of them."""
        if isinstance(result, Node):
            self._editor.replace(node, result)
        else:
            self._results[node] = result

    def is_part(self, node: Node) -> bool:
        return node.target is operator.getitem and node.args[0] in self._results

    def take(self, node: Node) -> None:
        self._editor.replace(node, self._results[node.args[0]][node.args[1]])


def inlined(program: Program, choose: Callable[[Node], Callable[[], Graph | None] | None]) -> tuple[Program, Counter]:
    """(The program with graphs in the place of ops, how many of each op). choose: what makes the graph for a node, by
    `trace`; None: the node stays, as it does if no graph is made. What is made for one node serves all that do the same
    to values of the same types."""
    editor, count, graphs = ProgramEditor(program), Counter(), {}
    parts = Parts(editor)
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        if parts.is_part(node):
            parts.take(node)
            continue
        make = choose(node)
        key = signature(node) if make is not None else None
        if make is not None and key not in graphs:
            graphs[key] = make()
        if key is None or graphs[key] is None:
            editor.keep(node)
            continue
        parts.replace(node, inline(editor, node, graphs[key]))
        count[op_name(node.target)] += 1
    return (editor.finish(), count) if count else (program, count)
