"""Rows that nobody reads are not computed, however far behind them the reader is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.known_values import KnownValues
from vlacompile.compiler.passes.rules.read_rows import Need, Rows, fewer, narrowed, need_of


@dataclass(frozen=True)
class DropUnreadRows(GraphPass):
    """Of a row of tokens those are computed that an output reads, at once or through attentions whose masks let it see
    them, whatever the inputs are: queries of which only the last is read, and tokens that the mask hides from every
    query that is, leave all the layers. Exact: a key that a query may not see has the probability 0.

    It fires where at least `least_share` of the arithmetic is saved that depends on the same sources, after loops are
    found: the last iteration of a loop, of which less is read, would no longer be like the others.

    Before:
        %x = source "x" f32[1,4,2]
        %w = weight "w" f32[2,2]
        %mask = weight "mask" bool[4,4]
        %linear = linear(%x, %w) f32[1,4,2]
        %scaled_dot_product_attention = scaled_dot_product_attention(%linear, %x, %x, %mask) f32[1,4,2]
        %select = select.int(%scaled_dot_product_attention, 1, 2) f32[1,2]
        return action=%select
    After:
        %x = source "x" f32[1,4,2]
        %w = weight "w" f32[2,2]
        %mask = weight "mask" bool[4,4]
        %slice_1 = slice.Tensor(%x, 1, 2, 3) f32[1,1,2]
        %linear = linear(%slice_1, %w) f32[1,1,2]
        %rows_0_3 = constant "rows_0_3" i64[2]
        %index_select = index_select(%x, 1, %rows_0_3) f32[1,2,2]
        %slice_2 = slice.Tensor(%mask, 0, 2, 3) bool[1,4]
        %index_select_1 = index_select(%slice_2, 1, %rows_0_3) bool[1,2]
        %scaled_dot_product_attention = scaled_dot_product_attention(%linear, %index_select, %index_select, \
%index_select_1) f32[1,1,2]
        %select = select.int(%scaled_dot_product_attention, 1, 0) f32[1,2]
        return action=%select
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    least_share: float = 0.01

    def run(self, program: Program) -> PassResult:
        needs = _needs(program)
        work = {n: flops(n) for n in needs}
        saved = {n: int(f * (1 - _share(n, needs[n].result))) for n, f in work.items() if f}
        deps, total = dependencies(program), sum(work.values())
        alike = {deps[n] for n, f in saved.items() if f}
        if sum(saved.values()) <= self.least_share * sum(f for n, f in work.items() if deps[n] in alike):
            return PassResult(program, False)
        editor = _Narrower(program, needs)
        for node in program.graph.nodes:
            editor.take(node)
        result = editor.finish()
        done = total - sum(flops(n) for n in result.graph.nodes)
        return PassResult(result, True, (f"rows that nobody reads: {done / 1e6:.3g} MFLOP of {total / 1e6:.3g}",))


def _share(node: Node, rows: Rows) -> float:
    share = 1.0
    for axis, r in rows.items():
        share *= len(r) / node.meta["val"].shape[axis]
    return share


def _needs(program: Program) -> dict[Node, Need]:
    known = KnownValues(program)
    asked: dict[Node, Rows] = {n: {} for n in program.output_nodes()}
    needs: dict[Node, Need] = {}
    for node in reversed(program.graph.nodes):
        if node.op != "call_function" or node not in asked:
            continue
        spend()
        needs[node] = need = need_of(node, asked[node], known)
        for operand, rows in need.operands:
            shape = operand.meta["val"].shape if isinstance(operand.meta["val"], torch.Tensor) else ()
            asked[operand] = fewer(rows, shape) if operand not in asked else {
                a: tuple(sorted({*asked[operand][a], *rows[a]})) for a in asked[operand] if a in rows and len(
                    {*asked[operand][a], *rows[a]}) < shape[a]}
    return needs


class _Narrower:
    """Copies a program with every node computed for the rows that are needed of it."""

    def __init__(self, program: Program, needs: dict[Node, Need]):
        self._editor, self._needs = ProgramEditor(program), needs
        self._read: dict[tuple[Node, int, tuple[int, ...]], Node] = {}

    def take(self, node: Node) -> None:
        need = self._needs.get(node)
        if node.op == "output":
            return
        if need is None or not (need.result or any(rows for _, rows in need.operands)):
            self._editor.keep(node)
            return
        new = [self._of(operand, rows) for operand, rows in need.operands]
        self._editor.replace(node, need.emit(self._editor, new))

    def _of(self, operand: Node, rows: Rows) -> Node:
        has = self._needs[operand].result if operand in self._needs else {}
        new = self._editor.map(operand)
        for axis, wanted in rows.items():
            place = {row: i for i, row in enumerate(has[axis])} if axis in has else None
            positions = [row if place is None else place[row] for row in wanted]
            key = (new, axis, tuple(positions))
            if key not in self._read:
                self._read[key] = narrowed(self._editor, new, axis, positions)
            new = self._read[key]
        return new

    def finish(self) -> Program:
        return self._editor.finish()
