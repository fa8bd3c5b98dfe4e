"""Attention rows of which a mask hides every key, as PyTorch has them, in any precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.mask_visibility import Visible

_ATEN = torch.ops.aten
_SDPA = _ATEN.scaled_dot_product_attention.default
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default})
_MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class GuardEmptyRows(GraphPass):
    """A row that sees no key gives zeros in scaled_dot_product_attention, and NaN in a softmax of nothing but -inf
    (which nan_to_num then makes zeros of). Engines differ there, and a precision in which -inf is a finite number has
    neither. Such rows get a mask that hides nothing, and then what PyTorch gives; where no row can be empty nothing is
    added. A mask beside is_causal becomes one mask.

    Before:
        %q = source "q" f32[1,2,4,8]
        %m = source "m" bool[1,1,4,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%q, %q, %q, %m) f32[1,2,4,8]
        return action=%scaled_dot_product_attention
    After:
        %q = source "q" f32[1,2,4,8]
        %m = source "m" bool[1,1,4,4]
        %any_1 = any.dim(%m, -1, True) bool[1,1,4,1]
        %logical_not = logical_not(%any_1) bool[1,1,4,1]
        %logical_or = logical_or(%m, %logical_not) bool[1,1,4,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%q, %q, %q, %logical_or) f32[1,2,4,8]
        %masked_fill = masked_fill.Scalar(%scaled_dot_product_attention, %logical_not, 0.0) f32[1,2,4,8]
        return action=%masked_fill
    """

    def run(self, program: Program) -> PassResult:
        guard = _Guard(program)
        for node in program.graph.nodes:
            if node.op != "output":
                guard.copy(node)
        if not guard.count:
            return PassResult(program, False)
        return PassResult(guard.editor.finish(), True, (f"guarded {guard.count} attentions whose rows may be empty",))


class _Guard:
    def __init__(self, program: Program):
        self.editor = ProgramEditor(program)
        self.visible = Visible(program, self.editor)
        self.empty: dict[Node, Node] = {}  # what is visible -> rows of which nothing is
        self.cleaned: dict[Node, Node] = {}  # a softmax -> its numbers before empty rows became NaN, and those rows
        self.count = 0

    def copy(self, node: Node) -> None:
        if node.target is _SDPA:
            self._attention(node)
        elif node.target in _SOFTMAX:
            self._softmax(node)
        elif node.target is _ATEN.nan_to_num.default and node.args[0] in self.cleaned:
            numbers, empty = self.cleaned[node.args[0]]
            new = self.editor.emit(node.target, (numbers, *node.args[1:]), dict(node.kwargs), like=node)
            nan = node.args[1] if len(node.args) > 1 else node.kwargs.get("nan")
            self.editor.replace(node, self._filled(new, empty, nan or 0.0, node))
        else:
            self.editor.keep(node)

    def _attention(self, node: Node) -> None:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        mask = given.get("attn_mask")
        if mask is None:
            self.editor.keep(node)
            return
        causal = given.get("is_causal", False)
        visible = self.visible.of(mask)
        if causal:
            rows, keys = given["query"].meta["val"].shape[-2], given["key"].meta["val"].shape[-2]
            triangle = self.editor.constant(f"causal__{rows}_{keys}", torch.ones(rows, keys, dtype=torch.bool).tril())
            visible = triangle if visible is None else self.editor.emit(
                _ATEN.logical_and.default, (visible, triangle), like=node)
        may_be_empty = visible is not None and (causal or self.visible.may_be_empty(mask))
        if not causal and not may_be_empty:
            self.editor.keep(node)
            return
        self.count += 1
        empty = self._empty_rows(visible, node)
        new_mask = self._mask(mask, visible, empty, causal, node)
        given = {k: self.editor.map_args(v) for k, v in given.items()} | {"attn_mask": new_mask}
        rest = {k: v for k, v in given.items() if k not in names or (k == "dropout_p" and v)}
        out = self.editor.emit(_SDPA, tuple(given[k] for k in names[:4]), rest, like=node)
        self.editor.replace(node, self._filled(out, empty, 0.0, node))

    def _mask(self, mask: Node, visible: Node, empty: Node, causal: bool, like: Node) -> Node:
        """Hides what is not visible, and nothing in an empty row."""
        if mask.meta["val"].dtype is torch.bool:
            return self.editor.emit(_ATEN.logical_or.default, (visible, empty), like=like)
        new = self.editor.map(mask)
        if causal:
            hidden = self.editor.emit(_ATEN.logical_not.default, (visible,), like=like)
            new = self.editor.emit(_ATEN.masked_fill.Scalar, (new, hidden, _MINUS_INFINITY), like=like)
        return self._filled(new, empty, 0.0, like)

    def _softmax(self, node: Node) -> None:
        scores = node.args[0]
        axis, rank = node.args[1], scores.meta["val"].dim()
        visible = self.visible.of(scores) if rank and axis % rank == rank - 1 else None
        if visible is None or not self.visible.may_be_empty(scores):
            self.editor.keep(node)
            return
        self.count += 1
        empty = self._empty_rows(visible, node)
        filled = self._filled(self.editor.map(scores), empty, 0.0, node)
        new = self.editor.emit(node.target, (filled, *node.args[1:]), dict(node.kwargs), like=node)
        self.cleaned[node] = new, empty
        self.editor.replace(node, self._filled(new, empty, float("nan"), node))

    def _empty_rows(self, visible: Node, like: Node) -> Node:
        if visible not in self.empty:
            some = self.editor.emit(_ATEN.any.dim, (visible, -1, True), like=like)
            self.empty[visible] = self.editor.emit(_ATEN.logical_not.default, (some,), like=like)
        return self.empty[visible]

    def _filled(self, value: Node, rows: Node, number: float, like: Node) -> Node:
        return self.editor.emit(_ATEN.masked_fill.Scalar, (value, rows, number), like=like)
