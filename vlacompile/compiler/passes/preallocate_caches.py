"""Memory for all steps of a loop in the place of what grows with every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.shortened_loops import left_out, loop_of
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.growing_values import Collection, Growing, Growth, growing_values
from vlacompile.compiler.passes.rules.padded_rows import Padded, PaddedOps, Rows

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class PreallocateCaches(GraphPass):
    """Keys and values that grow by a row per token are written into memory for all tokens, and hidden from attention
    until they are; tokens that are put together at the end are written into memory for all of them. The steps of a
    decoder are then alike, and become a loop.

    It is exact: a row that is not written yet has a weight of exp(-inf) = 0 in a softmax, whose largest element and sum
    it does not change, and adds 0 times a finite number to a product. Sums over more terms may be rounded otherwise, as
    those of any two engines are.

    Before:
        %k = source "k" f32[1,2,4]
        %q = source "q" f32[1,1,4]
        %tanh = tanh(%q) f32[1,1,4]
        %cat = cat([%k, %tanh], 1) f32[1,3,4]
        %transpose = transpose.int(%cat, 1, 2) f32[1,4,3]
        %matmul = matmul(%q, %transpose) f32[1,1,3]
        %softmax = softmax.int(%matmul, -1) f32[1,1,3]
        %matmul_1 = matmul(%softmax, %cat) f32[1,1,4]
        %tanh_1 = tanh(%matmul_1) f32[1,1,4]
        %cat_1 = cat([%cat, %tanh_1], 1) f32[1,4,4]
        %transpose_1 = transpose.int(%cat_1, 1, 2) f32[1,4,4]
        %matmul_2 = matmul(%matmul_1, %transpose_1) f32[1,1,4]
        %softmax_1 = softmax.int(%matmul_2, -1) f32[1,1,4]
        %matmul_3 = matmul(%softmax_1, %cat_1) f32[1,1,4]
        return action=%matmul_3
    After:
        %k = source "k" f32[1,2,4]
        %q = source "q" f32[1,1,4]
        %tanh = tanh(%q) f32[1,1,4]
        %empty_1x2x4_float32 = constant "empty_1x2x4_float32" f32[1,2,4]
        %row_1_of_2_1 = constant "row_1_of_2_1" bool[2,2,1]
        %select = select.int(%row_1_of_2_1, 0, 0) bool[2,1]
        %where = where.self(%select, %tanh, %empty_1x2x4_float32) f32[1,2,4]
        %cat = cat([%k, %where], 1) f32[1,4,4]
        %transpose = transpose.int(%cat, 1, 2) f32[1,4,4]
        %matmul = matmul(%q, %transpose) f32[1,1,4]
        %rows_of_2_1_2_0 = constant "rows_of_2_1_2_0" bool[2,4]
        %select_1 = select.int(%rows_of_2_1_2_0, 0, 0) bool[4]
        %minus_infinity_float32 = constant "minus_infinity_float32" f32[]
        %where_1 = where.self(%select_1, %matmul, %minus_infinity_float32) f32[1,1,4]
        %softmax = softmax.int(%where_1, -1) f32[1,1,4]
        %matmul_1 = matmul(%softmax, %cat) f32[1,1,4]
        %tanh_1 = tanh(%matmul_1) f32[1,1,4]
        %select_2 = select.int(%row_1_of_2_1, 0, 1) bool[2,1]
        %where_2 = where.self(%select_2, %tanh_1, %where) f32[1,2,4]
        %cat_1 = cat([%k, %where_2], 1) f32[1,4,4]
        %transpose_1 = transpose.int(%cat_1, 1, 2) f32[1,4,4]
        %matmul_2 = matmul(%matmul_1, %transpose_1) f32[1,1,4]
        %select_3 = select.int(%rows_of_2_1_2_0, 0, 1) bool[4]
        %where_3 = where.self(%select_3, %matmul_2, %minus_infinity_float32) f32[1,1,4]
        %softmax_1 = softmax.int(%where_3, -1) f32[1,1,4]
        %matmul_3 = matmul(%softmax_1, %cat_1) f32[1,1,4]
        return action=%matmul_3
    """

    def run(self, program: Program) -> PassResult:
        found = growing_values(program)
        if not found.growths and not found.collections:
            return PassResult(program, False)
        writer = _Writer(program, found)
        for node in program.graph.nodes:
            if node.op != "output":
                writer.write(node)
        outputs = tuple(writer.ops.exact(n) for n in program.output_nodes())
        notes = [f"{len(g.cats)} rows behind {g.begin} of {g.root.name}" for g in found.growths]
        return PassResult(writer.editor.finish(outputs), True, (*notes, *(
            f"{len(c.items)} values of {c.node.name}" for c in found.collections)))


class _Writer:
    """Copies a program; what grows is written into memory as soon as its row is there, so that this is part of the
    step. Rows that are one constant are there from the beginning."""

    def __init__(self, program: Program, found: Growing):
        self.editor = ProgramEditor(program)
        self.ops = PaddedOps(self.editor)
        self.program = program
        self.grown = {c: (g, i) for g in found.growths for i, c in enumerate(g.cats)}
        self.items: dict[Node, list[tuple[Collection, int]]] = {}
        for c in found.collections:
            for i, item in enumerate(c.items):
                self.items.setdefault(item, []).append((c, i))
        self.collected = {c.node: c for c in found.collections}
        self.memory: dict[object, Node] = {}  # of a growth or a collection, as it is now

    def write(self, node: Node) -> None:
        if node in self.grown:
            self._grow(node, *self.grown[node])
        elif node in self.collected:
            self.editor.replace(node, self.memory[self.collected[node]])
        elif any(i in self.ops.padded for i in node.all_input_nodes):
            self._compute(node)
        else:
            self.editor.keep(node)
        for c, i in self.items.get(node, ()):
            self._collect(node, c, i)

    def _grow(self, node: Node, growth: Growth, i: int) -> None:
        steps, each = len(growth.cats) + left_out(self.program, loop_of(self.program, growth.cats)), growth.each
        row = self.ops.exact(growth.rows[0 if growth.constant else i])
        shape = list(row.meta["val"].shape)
        if each > 1 or growth.constant:
            row = self.editor.emit(_ATEN.repeat.default, (row, [
                steps if d == growth.axis else 1 for d in range(len(shape))]), like=node)
        shape[growth.axis] = each * steps
        made = row if growth.constant else self._written(growth, row, shape, growth.axis, each, steps, i, node)
        root = self.ops.exact(growth.root)
        new = self.editor.emit(_ATEN.cat.default, ([root, made], growth.axis), like=node)
        self.ops.padded[node] = Padded(new, growth.axis, Rows(growth.begin, each, steps, i), True)

    def _collect(self, node: Node, c: Collection, i: int) -> None:
        item = self.ops.exact(node)
        if c.stacked:
            item = self.editor.emit(_ATEN.unsqueeze.default, (item, c.axis), like=node)
        shape = list(c.node.meta["val"].shape)
        self._written(c, item, shape, c.axis, 1, len(c.items), i, node)

    def _written(self, of: object, row: Node, shape: list[int], axis: int, each: int, steps: int, i: int,
                 like: Node) -> Node:
        """The memory of a growth or collection with its row of step `i`."""
        dtype, behind = row.meta["val"].dtype, len(shape) - 1 - axis
        text = "x".join(map(str, shape))
        before = self.memory.get(of) or self.editor.constant(
            f"empty_{text}_{str(dtype).removeprefix('torch.')}", torch.zeros(shape, dtype=dtype))
        here = torch.eye(steps, dtype=torch.bool).repeat_interleave(each, 1).reshape(steps, -1, *[1] * behind)
        now = self.ops.table(f"row_{each}_of_{steps}_{behind}", here, i, like)
        self.memory[of] = self.editor.emit(_ATEN.where.self, (now, row, before), like=like)
        return self.memory[of]

    def _compute(self, node: Node) -> None:
        new = self._row_that_was_added(node) or self.ops.compute(node)
        if isinstance(new, Padded):
            self.ops.padded[node] = new
        elif new is not None:
            self.editor.replace(node, new)
        else:
            args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), self.ops.exact)
            self.editor.replace(node, self.editor.emit(node.target, args, kwargs, like=node, val=node.meta["val"]))

    def _row_that_was_added(self, node: Node) -> Node | None:
        """What stands for the newest row, where that alone is read."""
        if node.target is not _ATEN.slice.Tensor or node.args[0] not in self.grown:
            return None
        growth, i = self.grown[node.args[0]]
        shape, read = node.args[0].meta["val"].shape, node.meta["val"].shape
        axis, begin = (*node.args[1:], *(0, 0)[len(node.args) - 1:])[:2]
        begin = 0 if begin is None else begin
        if axis % len(shape) != growth.axis or read[growth.axis] != growth.each \
                or begin % shape[growth.axis] != shape[growth.axis] - growth.each:
            return None
        return self.ops.exact(growth.rows[i])
