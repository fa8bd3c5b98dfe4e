"""Rewrites ops that depend on strides into ops on shapes: a value of a program has a shape and numbers, no strides."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import infer_val, to_meta

_ATEN = torch.ops.aten
# Reshapes, whatever the memory layout of the operand.
_RESHAPES = frozenset({_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN._reshape_alias.default})
# `a | b` on tensors is traced as an op of its own, of which PyTorch does not say that it acts on elements.
_SAME = {getattr(getattr(_ATEN, f"__{word}__"), kind): getattr(getattr(_ATEN, f"bitwise_{word}"), kind)
         for word in ("and", "or", "xor") for kind in ("Tensor", "Scalar")}
_FORMATS = frozenset({"memory_format", "layout", "pin_memory"})


class ByShape:
    """Copies traced calls into `graph` such that they mean the same for operands of any memory layout. constants:
    receives the index tensors that copied calls need."""

    def __init__(self, graph: Graph, constants: dict[str, torch.Tensor]):
        self.graph, self.constants = graph, constants

    def copy(self, node: Node, operand) -> Node:
        """operand: traced node -> its copy in `graph`. Strides are read from the traced node: only it knows them."""
        args, kwargs = map_arg(node.args, operand), dict(map_arg(node.kwargs, operand))
        if node.target in _RESHAPES:
            return self._call(node, _ATEN.reshape.default, args[:2])
        if node.target is _ATEN.as_strided.default:
            return self._gathered(node, args[0])
        if node.target is _ATEN.as_strided_scatter.default:
            return self._scattered(node, args[0], args[1])
        if node.target is _ATEN.contiguous.default:
            return self._call(node, _ATEN.clone.default, args[:1])
        if any(k in _FORMATS for k in kwargs):
            kwargs = {k: v for k, v in kwargs.items() if k not in _FORMATS}
        return self._call(node, _SAME.get(node.target, node.target), args, kwargs)

    def _call(self, node: Node, target, args: tuple, kwargs: dict | None = None) -> Node:
        return self.graph.create_node("call_function", target, args, kwargs or {}, name=node.name)

    def _gathered(self, node: Node, base: Node) -> Node:
        """as_strided as a gather: picks elements by their index into the flattened operand."""
        where, shape = self._positions(node, node.args[1:])
        picked = self._typed(self.graph.call_function(_ATEN.index_select.default, (self._flat(base), 0, where)))
        return self._call(node, _ATEN.reshape.default, (picked, list(shape)))

    def _scattered(self, node: Node, base: Node, source: Node) -> Node:
        """as_strided_scatter as a write into the flattened operand."""
        where, _ = self._positions(node, node.args[2:])
        written = self._typed(self.graph.call_function(
            _ATEN.index_put.default, (self._flat(base), [where], self._flat(source))))
        return self._call(node, _ATEN.reshape.default, (written, list(node.args[0].meta["val"].shape)))

    def _positions(self, node: Node, strided: tuple) -> tuple[Node, torch.Size]:
        index = positions(node.args[0].meta["val"], *strided)
        name = f"positions__{node.name}"
        self.constants[name] = index.flatten()
        where = self.graph.get_attr(name)
        where.meta["val"] = to_meta(self.constants[name])
        return where, index.shape

    def _flat(self, operand: Node) -> Node:
        return self._typed(self.graph.call_function(_ATEN.reshape.default, (operand, [-1])))

    @staticmethod
    def _typed(node: Node) -> Node:
        node.meta["val"] = infer_val(node)
        return node


def positions(base: torch.Tensor, size, stride, offset: int | None = None) -> torch.Tensor:
    """i64[size]: for every element of as_strided(base, size, stride, offset) its index into base.flatten(). Raises
    RuntimeError if an element lies outside of `base`."""
    begin = int(base.storage_offset())
    offset = begin if offset is None else int(offset)
    extent = lambda sizes, strides: sum((int(n) - 1) * int(s) for n, s in zip(sizes, strides, strict=True)) + 1
    held = torch.full((max(begin + extent(base.shape, base.stride()), offset + extent(size, stride)),), -1)
    elements = torch.arange(base.numel()).reshape(tuple(base.shape))
    held.as_strided(tuple(base.shape), base.stride(), begin).copy_(elements)
    found = held.as_strided(tuple(size), tuple(stride), offset).clone()
    if bool((found < 0).any()):
        raise RuntimeError("as_strided reads memory that is no element of its operand")
    return found
