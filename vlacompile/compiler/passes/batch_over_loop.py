"""Computes a loop's table once for all iterations, instead of row by row."""

from __future__ import annotations

import operator
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor, type_text
from vlacompile.compiler.graph.rolled_loop import SCALAR_OPS, RolledLoop
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_VIEWS = frozenset({_ATEN.view, _ATEN.reshape, _ATEN._unsafe_view, _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.flatten})
_SPLITS = frozenset({_ATEN.split, _ATEN.chunk, _ATEN.split_with_sizes})
_ALONG = frozenset({_ATEN.slice, _ATEN.select})  # their second operand is a dimension
_TRAILING = frozenset({_ATEN.linear, _ATEN.layer_norm})  # act on the last dimensions of their first operand
_DIFFER = object()  # operands that cannot be put together
Steps = Generator[tuple[Node, ...], Node, Node | None]  # yields rows, is sent them stacked


class _Batcher:
    """Emits `stack(rows)` as one computation over all rows, as far up as the rows are computed alike."""

    def __init__(self, editor: ProgramEditor):
        self.editor = editor
        self.done: dict[tuple[Node, ...], Node] = {}
        self.batched = 0

    def stacked(self, rows: tuple[Node, ...]) -> Node:
        """A new node [K, *shape]: row k is rows[k]."""
        asked, node = [self._made(rows)], None  # a stack of its own: conditions may be computed by hundreds of ops
        while asked:
            try:
                wanted = asked[-1].send(node)
            except StopIteration as made:
                asked.pop()
                node = made.value
            else:
                node = self.done.get(wanted)
                if node is None:
                    asked.append(self._made(wanted))
        return node

    def _made(self, rows: tuple[Node, ...]) -> Steps:
        if rows not in self.done:
            spend(len(rows))
            self.done[rows] = self._whole(rows) or (yield from self._computed(rows)) or self._plain(rows)
        return self.done[rows]

    def _plain(self, rows: tuple[Node, ...]) -> Node:
        return self.editor.emit(_ATEN.stack.default, ([self.editor.map(r) for r in rows], 0))

    def _whole(self, rows: tuple[Node, ...]) -> Node | None:
        """The rows are those of one tensor, in order."""
        first = rows[0]
        if any(r.op != "call_function" or r.target is not _ATEN.select.int for r in rows):
            return None
        source = first.args[0]
        in_order = all(r.args[:2] == (source, 0) and r.args[2] == k for k, r in enumerate(rows))
        return self.editor.map(source) if in_order and source.meta["val"].shape[0] == len(rows) else None

    def _computed(self, rows: tuple[Node, ...]) -> Steps:
        first = rows[0]
        alike = all(r.op == "call_function" and r.target is first.target and len(r.args) == len(first.args)
                    and r.kwargs == first.kwargs and r.meta["val"].shape == first.meta["val"].shape for r in rows)
        alike = alike and all(_fit(column) for column in zip(*(r.args for r in rows), strict=True))
        if not alike or len(set(rows)) == 1 or any(isinstance(v, Node) for v in first.kwargs.values()):
            return None
        node = yield from (self._piece(rows) if first.target is operator.getitem else self._op(rows))
        self.batched += node is not None
        return node

    def _op(self, rows: tuple[Node, ...]) -> Steps:
        first = rows[0]
        if not isinstance(first.target, torch._ops.OpOverload):
            return None
        packet, rank = first.target.overloadpacket, first.meta["val"].dim()
        rest_is_shared = all(r.args[1:] == first.args[1:] for r in rows)
        if is_pointwise(first) and not is_random(first):
            args = []
            for i, column in enumerate(zip(*(r.args for r in rows), strict=True)):
                args.append((yield from self._operand(column, i, first)))
            if all(a is not _DIFFER for a in args):
                return self.editor.emit(first.target, tuple(args), dict(first.kwargs), like=first)
        elif packet in _TRAILING and rest_is_shared:
            x = yield tuple(r.args[0] for r in rows)
            return self.editor.emit(first.target, (x, *self.editor.map_args(first.args[1:])), like=first)
        elif packet in _VIEWS and rest_is_shared:
            x = yield tuple(r.args[0] for r in rows)
            return self.editor.emit(_ATEN.reshape.default, (x, [len(rows), *first.meta["val"].shape]), like=first)
        elif packet in _ALONG and rest_is_shared:
            x = yield tuple(r.args[0] for r in rows)
            axis = (first.args[1] if len(first.args) > 1 else 0) % first.args[0].meta["val"].dim()
            return self.editor.emit(first.target, (x, axis + 1, *first.args[2:]), like=first)
        elif first.target is _ATEN.cat.default and rest_is_shared and len({len(r.args[0]) for r in rows}) == 1:
            axis = (first.args[1] if len(first.args) > 1 else 0) % rank
            parts = []
            for column in zip(*(r.args[0] for r in rows), strict=True):
                parts.append((yield from self._full(column)))  # noqa: PERF401  a comprehension cannot yield
            return self.editor.emit(first.target, (parts, axis + 1), like=first)
        return None

    def _piece(self, rows: tuple[Node, ...]) -> Steps:
        """getitem of a split: the split is done once, one dimension further in."""
        splits, index = tuple(r.args[0] for r in rows), rows[0].args[1]
        first = splits[0]
        if any(r.args[1] != index for r in rows) or any(
                s.target is not first.target or s.args[1:] != first.args[1:] for s in splits):
            return None
        if not isinstance(first.target, torch._ops.OpOverload) or first.target.overloadpacket not in _SPLITS:
            return None
        if splits not in self.done:
            rank = first.args[0].meta["val"].dim()
            axis = (first.args[2] if len(first.args) > 2 else 0) % rank
            x = yield tuple(s.args[0] for s in splits)
            self.done[splits] = self.editor.emit(first.target, (x, first.args[1], axis + 1), like=first)
        return self.editor.emit(operator.getitem, (self.done[splits], index), like=rows[0])

    def _operand(self, column: tuple, position: int, first: Node) -> Steps:
        """One operand of an element-wise op over all rows; numbers that differ become a constant column."""
        rank = first.meta["val"].dim()
        if isinstance(column[0], Node):
            return (yield from self._aligned(column, rank))
        if len(set(map(repr, column))) == 1:
            return column[0]
        if first.target in SCALAR_OPS and all(isinstance(v, float) for v in column):
            rows = torch.tensor(column, dtype=torch.float32).reshape(len(column), *[1] * rank)
            return self.editor.constant(f"{first.name}_{position}_rows", rows)
        return _DIFFER

    def _aligned(self, column: tuple[Node, ...], rank: int) -> Steps:
        """A tensor operand of an element-wise op, so that it broadcasts against [K, *shape]."""
        if len(set(column)) == 1:
            return self.editor.map(column[0])
        x, shape = (yield column), list(column[0].meta["val"].shape)
        if len(shape) == rank:
            return x
        return self.editor.emit(_ATEN.reshape.default, (x, [len(column), *[1] * (rank - len(shape)), *shape]))

    def _full(self, column: tuple[Node, ...]) -> Steps:
        """A part of a concatenation, with all its rows."""
        if len(set(column)) > 1:
            return (yield column)
        shape = list(column[0].meta["val"].shape)
        row = self.editor.emit(_ATEN.unsqueeze.default, (self.editor.map(column[0]), 0))
        return self.editor.emit(_ATEN.expand.default, (row, [len(column), *shape]))


def _fit(column: tuple) -> bool:
    """Whether one operand of every row is a value of the same type, or of every row none."""
    if any(isinstance(a, (list, tuple)) for a in column):
        return len({len(a) if isinstance(a, (list, tuple)) else None for a in column}) == 1 and all(
            _fit(c) for c in zip(*column, strict=True))
    return len({type_text(a.meta["val"]) if isinstance(a, Node) else None for a in column}) == 1


@dataclass(frozen=True)
class BatchOverLoop(GraphPass):
    """A loop's table whose rows are computed alike becomes one computation over all rows: one GEMM that reads the
    weights once, where there were K. For what depends on {observation, step} but not on the carried sample, as the
    FiLM of a denoising U-Net. Exact but for the order of sums in the GEMM.

    Before:
        %observation = source "observation" f32[1,4]
        %noise = source "noise" f32[1,4]
        %w = weight "w" f32[4,4]
        %add = add.Tensor(%observation, 0.0) f32[1,4]
        %relu = relu(%add) f32[1,4]
        %linear = linear(%relu, %w) f32[1,4]
        %add_1 = add.Tensor(%observation, 0.1) f32[1,4]
        %relu_1 = relu(%add_1) f32[1,4]
        %linear_1 = linear(%relu_1, %w) f32[1,4]
        %stack = stack([%linear, %linear_1], 0) f32[2,1,4]
        %loop = loop([%noise], [%stack], []) (f32[1,4])
        %getitem = getitem(%loop, 0) f32[1,4]
        return action=%getitem
    After:
        %observation = source "observation" f32[1,4]
        %noise = source "noise" f32[1,4]
        %w = weight "w" f32[4,4]
        %add_1_rows = constant "add_1_rows" f32[2,1,1]
        %add_2 = add.Tensor(%observation, %add_1_rows) f32[2,1,4]
        %relu_2 = relu(%add_2) f32[2,1,4]
        %linear_2 = linear(%relu_2, %w) f32[2,1,4]
        %loop = loop([%noise], [%linear_2], []) (f32[1,4])
        %getitem = getitem(%loop, 0) f32[1,4]
        return action=%getitem
    """

    def run(self, program: Program) -> PassResult:
        tables = {t for n in program.graph.nodes if isinstance(n.target, RolledLoop) for t in n.args[1]
                  if t.op == "call_function" and t.target is _ATEN.stack.default}
        editor = ProgramEditor(program)
        batcher, notes = _Batcher(editor), []
        for node in program.graph.nodes:
            if node in tables:
                before = batcher.batched
                whole = batcher._whole(tuple(node.args[0])) is not None
                editor.replace(node, batcher.stacked(tuple(node.args[0])))
                if whole or batcher.batched > before:
                    notes.append(f"{node.name}: " + ("is a source's rows" if whole else
                                                     f"{batcher.batched - before} ops over {len(node.args[0])} rows"))
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)
