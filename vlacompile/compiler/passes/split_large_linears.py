"""A Linear whose weight is more than a board grants in one allocation becomes several."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
STEP = 64  # outputs: a part is a multiple of it, so that kernels and blocks of scales stay whole


@dataclass(frozen=True)
class SplitLargeLinears(GraphPass):
    """linear(x, w) becomes cat(linear(x, w[:n]), linear(x, w[n:])): no part's weight has more than `numbers` numbers,
    and every output is the same sum as before. A language model's head over its vocabulary asks for a gigabyte at once.

    Before:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[192,4]
        %linear = linear(%x, %w) f32[1,192]
        return action=%linear
    After:
        %x = source "x" f32[1,4]
        %w__0_128 = weight "w__0_128" f32[128,4]
        %w__128_192 = weight "w__128_192" f32[64,4]
        %linear = linear(%x, %w__0_128) f32[1,128]
        %linear_1 = linear(%x, %w__128_192) f32[1,64]
        %cat = cat([%linear, %linear_1], 1) f32[1,192]
        return action=%cat
    """

    numbers: int = 512

    def run(self, program: Program) -> PassResult:
        parts = {n: cuts for n in program.graph.nodes if len(cuts := self._cuts(n, program)) > 1}
        if not parts:
            return PassResult(program, False)
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node not in parts:
                editor.keep(node)
                continue
            pieces = [_part(editor, node, begin, end) for begin, end in parts[node]]
            axis = node.meta["val"].dim() - 1
            editor.replace(node, editor.emit(_ATEN.cat.default, (pieces, axis), like=node))
            notes.append(f"{node.name}: {node.meta['val'].shape[-1]} outputs in {len(pieces)} products")
        return PassResult(editor.finish(), True, tuple(notes))

    def _cuts(self, node: Node, program: Program) -> list[tuple[int, int]]:
        """(first, end) of the outputs of each part."""
        if node.op != "call_function" or node.target is not _ATEN.linear.default or any(
                a is not None and (a.op != "get_attr" or a.target not in program.parameters) for a in node.args[1:]):
            return []
        outputs, inputs = program.constants[node.args[1].target].shape
        count = math.ceil(outputs * inputs / self.numbers)
        size = max(STEP, math.ceil(outputs / count / STEP) * STEP)
        while size > STEP and size * inputs > self.numbers:
            size -= STEP
        return [(b, min(b + size, outputs)) for b in range(0, outputs, size)] if count > 1 else []


def _part(editor: ProgramEditor, node: Node, begin: int, end: int) -> Node:
    operands = [editor.map(node.args[0])]
    for arg in node.args[1:]:
        tensor = None if arg is None else editor.program.constants[arg.target]
        operands.append(None if tensor is None else editor.weight(
            f"{arg.target}__{begin}_{end}", lambda t=tensor: t[begin:end].contiguous()))
    return editor.emit(node.target, tuple(operands), like=node)
