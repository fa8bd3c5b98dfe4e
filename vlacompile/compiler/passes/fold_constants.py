"""Computes now what no source reaches, where a stage boundary could not hold it or every pass would walk it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.invariants import TENSOR_CONSTANTS
from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_WRITES = frozenset({_ATEN.select_scatter, _ATEN.slice_scatter, _ATEN.index_put, _ATEN.copy, _ATEN.fill, _ATEN.scatter,
                     _ATEN.masked_fill})


@dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Ops with several results, and elements written into a tensor one after the other, of constants alone, are
    computed now: no value between stages is a tuple. What else no source reaches is folded by the stages that read it.
    After loops are found: what follows from an iteration's number is what they are found by.

    Before:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[2,4]
        %max_1 = max.dim(%w, 0) (f32[4], i64[4])
        %getitem = getitem(%max_1, 0) f32[4]
        %add = add.Tensor(%x, %getitem) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %known__getitem = weight "known__getitem" f32[4]
        %add = add.Tensor(%x, %known__getitem) f32[1,4]
        return action=%add
    """

    ensures = frozenset({TENSOR_CONSTANTS})

    def run(self, program: Program) -> PassResult:
        fold = _Fold(program)
        if not fold.wanted:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in fold.wanted:
                name = f"known__{node.name}"
                editor.replace(node, editor.weight(name, partial(fold.value, node)) if node in fold.of_weights else
                               editor.constant(name, fold.value(node)))
            elif node.op != "output" and node not in fold.inner:
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"computed {len(fold.wanted)} constants",))


class _Fold:
    """wanted: nodes that become constants; of_weights: those among all that read a weight. inner: nodes that only
    wanted ones read."""

    def __init__(self, program: Program):
        self.program, self.values = program, {}
        constant: set[Node] = set()
        self.of_weights: set[Node] = set()
        for n in program.graph.nodes:
            weight = n.op == "get_attr" and n.target in program.parameters
            if weight or any(i in self.of_weights for i in n.all_input_nodes):
                self.of_weights.add(n)
            computed = n.op == "call_function" and not is_random(n) and not isinstance(n.target, RolledLoop)
            if n.op == "get_attr" or (computed and all(i in constant for i in n.all_input_nodes)):
                constant.add(n)

        def is_written(n: Node) -> bool:
            return _packet(n) in _WRITES and n in constant

        several = {n for n in constant if n.op == "call_function" and not isinstance(n.meta["val"], torch.Tensor)}
        written = {n for n in constant if is_written(n) and not any(map(is_written, n.users))}
        self.wanted = written | {u for n in several for u in n.users
                                 if u.target is operator.getitem and isinstance(u.meta["val"], torch.Tensor)}
        self.inner = several | {n for n in constant
                                if is_written(n) and n not in written and all(map(is_written, n.users))}

    def value(self, node: Node) -> torch.Tensor:
        """Computed once, without recursion: chains of writes are thousands of nodes long."""
        stack = [node]
        while stack:
            n = stack[-1]
            missing = [i for i in n.all_input_nodes if i not in self.values]
            if n in self.values or not missing:
                stack.pop()
                self.values.setdefault(n, None if n in self.values else self._compute(n))
            else:
                stack += missing
        return self.values[node]

    def _compute(self, node: Node):
        if node.op == "get_attr":
            return self.program.constants[node.target]
        operand = self.values.__getitem__
        # A weight without content is a shape.
        if any(t.is_meta for i in node.all_input_nodes for t in _tensors(operand(i))):
            args, kwargs = (map_arg(a, lambda n: _on_meta(operand(n))) for a in (node.args, dict(node.kwargs)))
        else:
            args, kwargs = (map_arg(a, operand) for a in (node.args, dict(node.kwargs)))
        with torch.no_grad():
            found = node.target(*args, **kwargs)
        return found.contiguous() if isinstance(found, torch.Tensor) else found


def _packet(node: Node):
    return getattr(node.target, "overloadpacket", None)


def _tensors(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [v for v in value if isinstance(v, torch.Tensor)]


def _on_meta(value):
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return type(value)(_on_meta(v) for v in value)
