"""Ops on values with more rows than there are yet: along one axis the first rows are those of the value, the others are
for later steps and hold whatever was computed of zeros.

Owns what each op needs so that the others change nothing. A softmax over the rows gives the others a weight of exactly
zero, an attention masks them, and a product over the rows adds products that are zero; that no row is infinite or NaN,
where such a product is taken, is known or made so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.ops import is_move
from vlacompile.compiler.graph.program import ProgramEditor
from vlacompile.compiler.passes.rules.parts import Op, Parts, values_in
from vlacompile.compiler.passes.rules.row_rules import LISTED, rule_of

_ATEN = torch.ops.aten
_ATTENTION = _ATEN.scaled_dot_product_attention.default
_SOFTMAX = (_ATEN.softmax.int, _ATEN._softmax.default)
_PRODUCTS = (_ATEN.matmul.default, _ATEN.bmm.default, _ATEN.mm.default)
# What such ops make of finite numbers is finite.
_TAME = frozenset({_ATEN.mul, _ATEN.add, _ATEN.sub, _ATEN.neg, _ATEN.linear, _ATEN.cos, _ATEN.sin, _ATEN.relu,
                   _ATEN.bitwise_and, _ATEN.bitwise_or, _ATEN.logical_not, _ATEN.bitwise_not})


@dataclass(frozen=True)
class Rows:
    """How many rows there are at a step, of how many. begin: rows before the first step; each: rows that a step adds.
    steps: the last has begin + each * steps rows."""

    begin: int
    each: int
    steps: int
    step: int

    @property
    def live(self) -> int:
        return self.begin + self.each * (self.step + 1)

    @property
    def full(self) -> int:
        return self.begin + self.each * self.steps


@dataclass(frozen=True)
class Padded:
    """node: of the new graph, with rows.full rows along `axis`. finite: none of them is NaN or infinite unless one of
    the live ones is. zero: the others are zero."""

    node: Node
    axis: int
    rows: Rows
    finite: bool
    zero: bool = False


class PaddedOps:
    """padded: {old node: what stands for it}; of another old node the editor knows what does."""

    def __init__(self, editor: ProgramEditor):
        self.editor = editor
        self.padded: dict[Node, Padded] = {}

    def exact(self, old: Node) -> Node:
        """The value without the rows that are not there yet."""
        p = self.padded.get(old)
        if p is None:
            return self.editor.map(old)
        return self.editor.emit(_ATEN.slice.Tensor, (p.node, p.axis, 0, p.rows.live), like=old)

    def compute(self, node: Node) -> Padded | Node | None:
        """The op on padded operands; a node where no such rows are left, None where the op mixes rows otherwise."""
        if node.target is _ATTENTION:
            return self._attention(node)
        if node.target in _PRODUCTS:
            return self._product(node)
        if node.target in _SOFTMAX:
            p = self.padded.get(node.args[0])
            if p is not None and node.args[1] % node.meta["val"].dim() == p.axis:
                return self._softmax(node, p)
        return self._rows(node)

    def table(self, name: str, rows: torch.Tensor, step: int, like: Node) -> Node:
        """Row `step` of a constant with a row per step."""
        return self.editor.emit(_ATEN.select.int, (self.editor.constant(name, rows), 0, step), like=like)

    def live(self, rows: Rows, axis: int, rank: int, like: Node) -> Node:
        """bool: which rows there are, to be broadcast along the axes before and behind."""
        count = torch.arange(rows.full)[None] < rows.begin + rows.each * (torch.arange(rows.steps)[:, None] + 1)
        shape = [rows.full, *[1] * (rank - 1 - axis)]
        name = f"rows_of_{rows.begin}_{rows.each}_{rows.steps}_{rank - 1 - axis}"
        return self.table(name, count.reshape(rows.steps, *shape), rows.step, like)

    def _number(self, value: float, dtype: torch.dtype) -> Node:
        name = "zero" if value == 0 else "minus_infinity"
        return self.editor.constant(f"{name}_{str(dtype).removeprefix('torch.')}", torch.tensor(value, dtype=dtype))

    def _where_live(self, p: Padded, otherwise: float, like: Node) -> Node:
        val = p.node.meta["val"]
        return self.editor.emit(_ATEN.where.self, (
            self.live(p.rows, p.axis, val.dim(), like), p.node, self._number(otherwise, val.dtype)), like=like)

    def _fitted(self, old: Node, axis: int, rows: Rows) -> Node | None:
        """The operand with rows.full rows along `axis`; None: it has another number."""
        p = self.padded.get(old)
        if p is not None:
            return p.node if p.axis == axis and p.rows == rows else None
        new, shape = self.editor.map(old), list(old.meta["val"].shape)
        if shape[axis] != rows.live:
            return None
        shape[axis] = rows.full - rows.live
        if not shape[axis]:
            return new
        dtype = old.meta["val"].dtype
        name = f"no_rows_{'x'.join(map(str, shape))}_{str(dtype).removeprefix('torch.')}"
        nothing = self.editor.constant(name, torch.zeros(shape, dtype=dtype))
        return self.editor.emit(_ATEN.cat.default, ([new, nothing], axis), like=old)

    def _softmax(self, node: Node, p: Padded) -> Padded:
        masked = self._where_live(p, float("-inf"), node)
        new = self.editor.emit(node.target, (masked, *node.args[1:]), dict(node.kwargs), like=node)
        return Padded(new, p.axis, p.rows, True, True)

    def _attention(self, node: Node) -> Node | Padded | None:
        names = [a.name for a in _ATTENTION._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        query, key, value, mask = (given.get(n) for n in ("query", "key", "value", "attn_mask"))
        k, v = self.padded.get(key), self.padded.get(value)
        rank = key.meta["val"].dim()
        if query in self.padded or given.get("is_causal") or k is None or v is None or k.rows != v.rows \
                or k.axis != rank - 2 or v.axis != rank - 2:
            return self._rows(node)
        visible = self._mask(node, mask, k.rows, rank)
        if visible is None:
            return None
        own = [p.node if p.finite else self._where_live(p, 0.0, node) for p in (k, v)]
        rest = {n: a for n, a in given.items() if n not in ("query", "key", "value", "attn_mask")}
        return self.editor.emit(_ATTENTION, (self.editor.map(query), *own, visible), rest, like=node)

    def _mask(self, node: Node, mask: Node | None, rows: Rows, rank: int) -> Node | None:
        live = self.live(rows, 0, 1, node)
        if mask is None:
            return self.editor.emit(_ATEN.reshape.default, (live, [*[1] * (rank - 1), rows.full]), like=node)
        last = mask.meta["val"].dim() - 1
        one = mask.meta["val"].shape[last] == 1 and mask not in self.padded
        given = self.editor.map(mask) if one else self._fitted(mask, last, rows)
        if given is None:
            return None
        if mask.meta["val"].dtype == torch.bool:
            return self.editor.emit(_ATEN.bitwise_and.Tensor, (given, live), like=node)
        hidden = self._number(float("-inf"), mask.meta["val"].dtype)
        return self.editor.emit(_ATEN.where.self, (live, given, hidden), like=node)

    def _product(self, node: Node) -> Padded | Node | None:
        a, b = node.args[:2]
        p, q = self.padded.get(a), self.padded.get(b)
        last, first = a.meta["val"].dim() - 1, b.meta["val"].dim() - 2
        if q is not None and p is None and q.axis == first + 1:
            new = self.editor.emit(node.target, (self.editor.map(a), q.node), like=node)
            return Padded(new, node.meta["val"].dim() - 1, q.rows, q.finite)
        over = (p is not None and p.axis == last, q is not None and q.axis == first)
        if not any(over) or (p and not over[0]) or (q and not over[1]):
            return self._rows(node)
        rows = (p or q).rows
        factors = []
        for old, own, axis, zero in ((a, p, last, True), (b, q, first, False)):
            done = own is None or (own.zero if zero else own.finite)
            factor = self._fitted(old, axis, rows) if done else self._where_live(own, 0.0, node)
            if factor is None or (own is not None and own.rows != rows):
                return None
            factors.append(factor)
        return self.editor.emit(node.target, tuple(factors), like=node)

    def _rows(self, node: Node) -> Padded | None:
        """An op that acts on every row by itself."""
        divided = [i for i in node.all_input_nodes if i in self.padded]
        first = self.padded[divided[0]]
        if any(i in self.padded for i in values_in(list(node.kwargs.values()))):
            return None

        def value(arg):
            if isinstance(arg, (list, tuple)):
                return type(arg)(map(value, arg))
            p = self.padded.get(arg) if isinstance(arg, Node) else None
            return arg if p is None else Parts(p.axis, (arg,), frozenset())

        op = Op(node.target, tuple(map(value, node.args)), dict(node.kwargs), node)
        rule = rule_of(op, first.axis)
        if rule is None:
            return None
        listed = LISTED.get(op.packet)
        operands = node.args if listed is None else node.args[listed]
        fitted = {i: self._fitted(operands[i], axis, first.rows) for i, axis in rule.operands.items()}
        if None in fitted.values() or set(divided) - {operands[i] for i in fitted}:
            return None
        new = set(fitted.values())
        args = map_arg(rule.args(fitted, first.rows.full), lambda n: n if n in new else self.editor.map(n))
        return self._alike(node, args, rule.result, first)

    def _alike(self, node: Node, args: tuple, axis: int, first: Padded) -> Padded | None:
        """The op on more rows, if its result has as many more."""
        kwargs = map_arg(dict(node.kwargs), self.editor.map)
        try:
            new = self.editor.emit(node.target, args, kwargs, like=node)
        except RuntimeError:  # sizes that are written out do not fit
            return None
        if not isinstance(node.meta["val"], torch.Tensor):
            return None
        wanted = list(node.meta["val"].shape)
        if wanted[axis] != first.rows.live:
            return None
        wanted[axis] = first.rows.full
        if list(new.meta["val"].shape) != wanted:
            return None
        own = [self.padded[i] for i in node.all_input_nodes if i in self.padded]
        finite = all(p.finite for p in own) and (is_move(node) or getattr(node.target, "overloadpacket", None) in _TAME)
        return Padded(new, axis, first.rows, finite, is_move(node) and all(p.zero for p in own))
