"""Copies a program with some concatenations taken apart: what acts on every row alone acts on each part.

Owns the bookkeeping of values that are in parts. The rules of single ops are in `row_rules.py`; which concatenations,
and how far, is decided by the passes that use it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.rules.attention_pattern import Attention
from vlacompile.compiler.passes.rules.constant_reads import (
    KnownIndices,
    Piece,
    Read,
    pieces_of,
    read_of,
    reads_rows,
    row_index,
)
from vlacompile.compiler.passes.rules.equal_rows import EqualRows
from vlacompile.compiler.passes.rules.mask_blocks import KnownBlocks
from vlacompile.compiler.passes.rules.parts import (
    Op,
    Parts,
    Value,
    axes_of,
    joined,
    parts_along,
    rank_of,
    roots_of,
    shape_of,
    values_in,
    with_roots,
)
from vlacompile.compiler.passes.rules.row_rules import LISTED, rule_of

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class SplitRows:
    """A program in which some concatenations are taken apart.

    values: {node of the program before: its value}, of what is in parts. graph: without outputs."""

    values: Mapping[Node, Parts]
    editor: ProgramEditor

    @property
    def graph(self) -> Graph:
        return self.editor.graph

    def finish(self) -> Program:
        return self.editor.finish()


def split_rows(program: Program, roots: Mapping[Node, list[int]], allowed: set[Node] | None = None,
               attentions: Mapping[Node, Attention] | None = None) -> SplitRows:
    """The program with the ops in `allowed` (None: all) acting on the parts of the concatenations `roots`,
    {concatenation: how many neighbours stay together}. attentions: {last node: attention} whose queries may be parts of
    a row of tokens; what reads rows that are no constant then reads slices of them."""
    splitter = _RowSplitter(program, roots, attentions)
    for node in program.graph.nodes:
        if node.op != "output":
            splitter.take(node, allowed is None or node in allowed or node.target is operator.getitem)
    for node in program.output_nodes():
        splitter.map_whole(node)
    return SplitRows(splitter.values, splitter.editor)


class _RowSplitter:
    def __init__(self, program: Program, roots: Mapping[Node, list[int]], attentions: Mapping[Node, Attention] | None):
        self.editor, self.roots = ProgramEditor(program), roots
        self.attentions = {} if attentions is None else attentions
        self.cuts = attentions is not None
        self.inner = {n: a for a in self.attentions.values() for n in a.inner}
        self.values: dict[Node, Parts] = {}
        self._whole: dict[Parts, Node] = {}
        self._fixed: dict[Node, Node] = {}  # new nodes that depend on no source: what they stand for
        self._deps = dependencies(program)
        self._known, self._equal = KnownBlocks(program, self._deps), EqualRows(program, self._deps)
        self._indices, self._own = KnownIndices(program), set()  # names of new constants with which rows are read

    def take(self, node: Node, permitted: bool) -> None:
        """The next node of the program; permitted: whether it may act on parts."""
        attention = self.attentions.get(node) if permitted else None
        if attention is not None and self._in_rows(attention):
            self.values[node] = self._attend(attention)
            return
        if permitted and node in self.inner and self._in_rows(self.inner[node]):
            return  # emitted with the last node of its attention
        value = self._in_parts(node) if permitted else None
        if value is not None:
            self.values[node] = value
            return
        for i in node.all_input_nodes:
            self.map_whole(i)
        new = self._copy(node)
        if not self._deps[node]:
            self._fixed[new] = node

    def _copy(self, node: Node) -> Node:
        """Joined rows lie otherwise in memory than what an attention gave: its heads are then no view."""
        if not self.cuts or node.target is not _ATEN.view.default:
            return self.editor.copy(node)
        new = self.editor.emit(_ATEN.reshape.default, self.editor.map_args(node.args), like=node)
        self.editor.replace(node, new)
        return new

    def map_whole(self, node: Node) -> None:
        if node in self.values:
            self.editor.replace(node, self.whole(self.values[node]))

    def whole(self, value: Value) -> Node:
        if isinstance(value, Node):
            return value
        if value not in self._whole:
            parts = [self.whole(p) for p in value.parts]
            whole = parts[0] if len(parts) == 1 else self.editor.emit(_ATEN.cat.default, (parts, value.axis))
            self._whole[value] = whole
        return self._whole[value]

    def _in_parts(self, node: Node) -> Parts | None:
        if node.op != "call_function":
            return None

        def value(arg):
            if isinstance(arg, Node):
                return self.values[arg] if arg in self.values else self.editor.map(arg)
            return type(arg)(map(value, arg)) if isinstance(arg, (list, tuple)) else arg

        kwargs = {k: self._read_whole(v) for k, v in node.kwargs.items()}
        op = Op(node.target, tuple(map(value, node.args)), kwargs, node)
        if node in self.roots:
            return self._root(op, self.roots[node])
        if not any(isinstance(v, Parts) for v in values_in(op.args)):
            return None
        return self._divided(op)

    def _read_whole(self, arg):
        if isinstance(arg, Node):
            self.map_whole(arg)
        return self.editor.map_args(arg)

    def _root(self, op: Op, runs: list[int]) -> Parts:
        """The concatenation itself; neighbours that depend on the same sources stay together."""
        rank = op.like.meta["val"].dim()
        axis, parts, begin = (op.args[1] if len(op.args) > 1 else 0) % rank, [], 0
        for count in runs:
            group = list(op.args[0][begin: begin + count])
            begin += count
            single = count == 1 and op.target is _ATEN.cat.default
            parts.append(group[0] if single else self._compute(
                Op(_ATEN.unsqueeze.default, (group[0], axis), {}, op.like) if count == 1 else
                Op(op.target, (group, axis), {}, op.like)))
        roots = frozenset({op.like.name})
        if self.cuts:  # keys of a cache, then those of tokens that are in parts themselves
            return Parts(axis, tuple(q for p in parts for q in _along(p, axis)), roots.union(*map(roots_of, parts)))
        return Parts(axis, tuple(parts), roots)

    def _compute(self, op: Op) -> Value:
        divided = self._divided(op) if any(isinstance(v, Parts) for v in values_in(op.args)) else None
        if divided is not None:
            return divided

        def whole(arg):
            if isinstance(arg, (Node, Parts)):
                return self.whole(arg)
            return [whole(a) for a in arg] if isinstance(arg, (list, tuple)) else arg

        target = _ATEN.reshape.default if op.packet in (_ATEN.view, _ATEN._unsafe_view) else op.target
        return self.editor.emit(target, tuple(map(whole, op.args)), dict(op.kwargs), like=op.like)

    def _divided(self, op: Op) -> Parts | None:
        """The op on each part, along the outermost axis where that is possible."""
        if op.target is _ATEN.cat.default and self.cuts:
            longer = self._longer(op)
            if longer is not None:
                return longer
        first = next(v for v in values_in(op.args) if isinstance(v, Parts))
        spend(len(first.parts))
        for axis in axes_of(first):
            rows = parts_along(first, axis)
            if rows is not None and any(
                    isinstance(_tensor(r), torch.Tensor) and len(shape_of(r)) <= axis for r in rows):
                rows = None  # a row that was picked may be a number
            picked = None if rows is None else self._picked(op, axis, rows)
            if picked is not None:
                return picked
            rule = None if rows is None else rule_of(op, axis)
            if rule is None:
                continue
            operands = op.args[LISTED[op.packet]] if op.packet in LISTED else op.args
            sizes = None if op.target is operator.getitem else [shape_of(r)[axis] for r in rows]
            columns = {i: rows if operands[i] is first else self._like(operands[i], a, sizes)
                       for i, a in rule.operands.items()}
            if any(c is None for c in columns.values()):
                continue
            divided = [(operands[i], a) for i, a in rule.operands.items() if isinstance(operands[i], Parts)]
            roots = frozenset().union(*(v.roots if v.axis == a else roots_of(v) for v, a in divided))
            done = [self._compute(Op(op.target, rule.args({i: c[k] for i, c in columns.items()}, sizes and sizes[k]),
                                     op.kwargs, op.like)) for k in range(len(rows))]
            return joined(rule.result, tuple(done), roots)
        return None

    def _picked(self, op: Op, axis: int, rows: list[Value]) -> Parts | None:
        """Rows along the axis of the parts are rows of some of them."""
        if not reads_rows(op.target) or op.kwargs or not isinstance(op.args[0], Parts):
            return None
        read = read_of(op.target, op.args, shape_of(op.args[0]), self._index)
        if read is None or read.axis != axis or not read.indices:
            return None
        pieces = pieces_of(read.indices, [shape_of(r)[axis] for r in rows])
        if len(pieces) > 2 * len(rows):
            return None
        roots, taken = roots_of(op.args[0]), tuple(self._rows(op, read, p, rows[p.number]) for p in pieces)
        return with_roots(taken[0], roots) if len(taken) == 1 else Parts(axis, taken, roots)

    def _index(self, index: Value) -> torch.Tensor | None:
        if isinstance(index, Node) and index.target in self._own:
            return self.editor.constants[index.target]
        return self._indices(self._fixed[index]) if index in self._fixed else None

    def _rows(self, op: Op, read: Read, piece: Piece, part: Value) -> Value:
        if read.picked:
            return self._compute(Op(_ATEN.select.int, (part, read.axis, piece.local[0]), {}, op.like))
        if piece.whole:
            return part
        span = piece.span()
        if span is None:
            index = row_index(self.editor, piece.local)
            self._own.add(index.target)
            return self._compute(Op(_ATEN.index_select.default, (part, read.axis, index), {}, op.like))
        begin, end, step = span
        return self._compute(Op(_ATEN.slice.Tensor, (
            part, read.axis, begin, end, *([step] if step > 1 else [])), {}, op.like))

    def _like(self, value: Value, axis: int, sizes: list[int]) -> list[Value] | None:
        """The parts of another operand, of these sizes; constants are cut."""
        if isinstance(value, Node):
            if (value not in self._fixed and not self.cuts) or shape_of(value)[axis] != sum(sizes):
                return None
            return self._cut(value, axis, sizes)
        rows = parts_along(value, axis)
        return rows if rows is not None and [shape_of(r)[axis] for r in rows] == sizes else None

    def _cut(self, value: Node, axis: int, sizes: list[int]) -> list[Node]:
        """Parts with equal rows are one value: a frame of a history is then what the one before was."""
        if value in self._fixed and self._equal.along(self._fixed[value], axis, sizes):
            one = {size: self.editor.emit(_ATEN.slice.Tensor, (value, axis, 0, size)) for size in dict.fromkeys(sizes)}
            return [one[size] for size in sizes]
        return [self.editor.emit(_ATEN.slice.Tensor, (value, axis, end - size, end))
                for size, end in zip(sizes, accumulate(sizes), strict=True)]

    def _longer(self, op: Op) -> Parts | None:
        """A concatenation along the axis of its operands' parts has these parts and the other operands."""
        operands = op.args[0]
        axis = (op.args[1] if len(op.args) > 1 else 0) % rank_of(operands[0])
        if not all(isinstance(v, Node) or v.axis == axis for v in operands):
            return None
        parts = [p for v in operands for p in (v.parts if isinstance(v, Parts) else (v,))]
        return Parts(axis, tuple(parts), frozenset().union(*map(roots_of, operands)))

    def _value(self, node: Node) -> Value:
        return self.values[node] if node in self.values else self.editor.map(node)

    def _in_rows(self, attention: Attention) -> bool:
        """Whether the queries are parts of a row of tokens, so that each part may see other keys."""
        query = self.values.get(attention.query)
        return isinstance(query, Parts) and query.axis == rank_of(query) - 2

    def _attend(self, attention: Attention) -> Parts:
        """The attention of each part of the queries, over the keys that its mask lets it see."""
        query, keys, values = (self._value(n) for n in (attention.query, attention.keys, attention.values))
        axis, along = rank_of(query) - 2, attention.key_axis % rank_of(keys)
        columns, rows = parts_along(keys, along), parts_along(values, rank_of(values) - 2)
        split = columns is not None and rows is not None and [shape_of(c)[along] for c in columns] == [
            shape_of(r)[-2] for r in rows]
        sizes = [shape_of(c)[along] for c in columns] if split and columns is not None else [shape_of(keys)[along]]
        outs, begin = [], 0
        for part in query.parts:
            end = begin + shape_of(part)[axis]
            seen = self._known.visible_keys(attention.mask, (begin, end), sizes) if split else [0]
            whole = len(seen) == len(sizes)
            k = keys if whole else Parts(along, tuple(columns[j] for j in seen), frozenset())
            v = values if whole else Parts(rank_of(values) - 2, tuple(rows[j] for j in seen), frozenset())
            mask = None if attention.mask is None else self._mask(attention.mask, (begin, end), sizes, seen)
            outs.append(attention.emit(self.editor, self.whole(part), self.whole(k), self.whole(v), mask))
            begin = end
        return Parts(axis, tuple(outs), roots_of(query))

    def _mask(self, mask: Node, rows: tuple[int, int], sizes: list[int], seen: list[int]) -> Node:
        """The mask's rows and visible columns."""
        self.map_whole(mask)
        node = self.editor.map(mask)
        rank, shape = node.meta["val"].dim(), node.meta["val"].shape
        if shape[-2] > 1:
            node = self.editor.emit(_ATEN.slice.Tensor, (node, rank - 2, *rows))
        if len(seen) == len(sizes) or shape[-1] == 1:
            return node
        ends = list(accumulate(sizes))
        pieces = [self.editor.emit(_ATEN.slice.Tensor, (node, rank - 1, ends[j] - sizes[j], ends[j])) for j in seen]
        return pieces[0] if len(pieces) == 1 else self.editor.emit(_ATEN.cat.default, (pieces, rank - 1))


def _tensor(value: Value):
    """What the first part of a value is: a tensor, or a tuple of them."""
    while isinstance(value, Parts):
        value = value.parts[0]
    return value.meta["val"]


def _along(value: Value, axis: int) -> tuple[Value, ...]:
    """Its parts, where they are along `axis`; else itself."""
    return value.parts if isinstance(value, Parts) and value.axis == axis else (value,)
