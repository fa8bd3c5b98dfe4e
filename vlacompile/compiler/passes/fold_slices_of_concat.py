"""Reads parts of a concatenation directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.constant_reads import (
    KnownIndices,
    Piece,
    Read,
    pieces_of,
    read_of,
    reads_rows,
    row_index,
)

_ATEN = torch.ops.aten
_JOINS = frozenset({_ATEN.cat.default, _ATEN.stack.default})


@dataclass(frozen=True)
class FoldSlicesOfConcat(GraphPass):
    """slice(cat([a, b]), rows of a) becomes these rows of a, select(stack([a, b]), i) the one of them: a camera that is
    read from several depends on itself alone, and a key/value cache that is cropped to its prefix after every denoising
    step is seen to be the prefix, and leaves the loop. It fires for slices that are whole parts, and for whatever reads
    constant rows where the parts that it reads depend on fewer sources than all of them; with `any_rate` also where
    they change together: of layers whose outputs are stacked and one of them read, the others leave. Between the two
    may be transpositions.

    Before:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %cat = cat([%a, %b], 1) f32[1,5]
        %slice_1 = slice.Tensor(%cat, 1, 0, 2) f32[1,2]
        %relu = relu(%slice_1) f32[1,2]
        return action=%relu
    After:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %relu = relu(%a) f32[1,2]
        return action=%relu
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    any_rate: bool = False  # not before loops are found: the iterations of one that begins with a source stay alike

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        known = KnownIndices(program)
        rates = None if self.any_rate else _Rates(program, editor)
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            new = _folded(editor, node, known, rates)
            if new is None:
                editor.keep(node)
            else:
                editor.replace(node, new)
                count += 1
        if not count:
            return PassResult(program, False)
        return PassResult(editor.finish(), True, (f"read {count} slices directly",))


class _Rates:
    """{node of a graph that is being written: the sources that it depends on}; of what a loop changes, its own alone:
    all of that changes at once."""

    def __init__(self, program: Program, editor: ProgramEditor):
        self._editor, self._inputs = editor, program.inputs
        self._looped = {n for n, s in program.sources.items() if s.update == "step"}
        self._known: dict[Node, frozenset[str]] = {}
        self._last: Node | None = None

    def of(self, nodes: list[Node]) -> frozenset[str]:
        root = self._editor.graph._root
        node = root.next if self._last is None else self._last.next
        while node is not root:
            own = {self._inputs[node.name]} if node.op == "placeholder" else ()
            found = frozenset(own).union(*(self._known[i] for i in node.all_input_nodes))
            self._known[node], self._last = found, node
            node = node.next
        found = frozenset().union(*(self._known[n] for n in nodes))
        return found & self._looped or found


def _folded(editor: ProgramEditor, node: Node, known: KnownIndices, rates: _Rates | None) -> Node | None:
    """What stands for a read of what stands for its operand now: that may have become a concatenation, or another."""
    operand = node.args[0] if node.op == "call_function" and node.args and not node.kwargs else None
    if not isinstance(operand, Node) or not reads_rows(node.target):
        return None
    return _Reads(editor, rates, node, known).read(node.target, (editor.map(operand), *node.args[1:]))


@dataclass(frozen=True)
class _Reads:
    """like: the node whose lines in the policy's code what is emitted comes from. known: the numbers of an index."""

    editor: ProgramEditor
    rates: _Rates | None
    like: Node
    known: Callable[[Node], torch.Tensor | None]

    def read(self, target, args: tuple) -> Node | None:
        """What this op reads of the parts of its first operand, a node of the new graph; None: it stays."""
        source, order = _behind_transpositions(args[0])
        if source.op != "call_function" or source.target not in _JOINS:
            return None
        read = read_of(target, args, tuple(args[0].meta["val"].shape), self.known)
        if read is None or not read.indices or (source is not args[0] and not read.picked):
            return None
        at, read = read.axis, replace(read, axis=order[read.axis])
        parts, stacked = source.args[0], source.target is _ATEN.stack.default
        rank = source.meta["val"].dim()
        if (source.args[1] if len(source.args) > 1 else 0) % rank != read.axis or any(
                p.meta["val"].dim() != rank - stacked for p in parts):
            return None
        pieces = pieces_of(read.indices, [1 if stacked else p.meta["val"].shape[read.axis] for p in parts])
        used = [parts[p.number] for p in pieces]
        cropped = target is _ATEN.slice.Tensor and all(p.whole for p in pieces)
        if not cropped and not self._gains(used, list(parts)):
            return None
        if stacked and not read.picked:
            return None if used == list(parts) else self.editor.emit(source.target, (used, read.axis), like=self.like)
        new = self._rows(read, pieces, used, stacked)
        rest = [d - (d > read.axis) for d in order[:at] + order[at + 1:]]
        if rest != sorted(rest):
            new = self._emit(_ATEN.permute.default, new, rest)
        if new.meta["val"].dtype == source.meta["val"].dtype:
            return new
        return self.editor.emit(_ATEN._to_copy.default, (new,), {"dtype": source.meta["val"].dtype}, like=self.like)

    def _gains(self, used: list[Node], parts: list[Node]) -> bool:
        if self.rates is None:
            return set(used) != set(parts)
        return self.rates.of(used) != self.rates.of(parts)  # else the iterations of a loop might no longer be alike

    def _rows(self, read: Read, pieces: list[Piece], used: list[Node], stacked: bool) -> Node:
        if read.picked:
            return used[0] if stacked else self._emit(_ATEN.select.int, used[0], read.axis, pieces[0].local[0])
        done = [self._piece(read.axis, p, part) for p, part in zip(pieces, used, strict=True)]
        return done[0] if len(done) == 1 else self.editor.emit(_ATEN.cat.default, (done, read.axis), like=self.like)

    def _piece(self, axis: int, piece: Piece, part: Node) -> Node:
        if piece.whole:
            return part
        span = piece.span()
        if span is None:
            return self._emit(_ATEN.index_select.default, part, axis, row_index(self.editor, piece.local))
        begin, end, step = span
        return self._emit(_ATEN.slice.Tensor, part, axis, begin, end, *([step] if step > 1 else []))

    def _emit(self, target, *args) -> Node:
        """A read of a part that is itself a concatenation is one of its parts."""
        own = replace(self, known=lambda index: self.editor.constants[index.target])
        new = own.read(target, args) if reads_rows(target) else None
        return self.editor.emit(target, args, like=self.like) if new is None else new


def _behind_transpositions(node: Node) -> tuple[Node, list[int]]:
    """(what is transposed to give a node, which dimension of it each of the node's is)"""
    order = list(range(node.meta["val"].dim()))
    while node.target in (_ATEN.transpose.int, _ATEN.permute.default):
        dims = list(range(len(order)))
        if node.target is _ATEN.permute.default:
            dims = [d % len(order) for d in node.args[1]]
        else:
            a, b = (d % len(order) for d in node.args[1:3])
            dims[a], dims[b] = dims[b], dims[a]
        order, node = [dims[d] for d in order], node.args[0]
    return node, order
