"""A Linear of which only some outputs are read computes only those."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class FoldSlicesIntoLinears(GraphPass):
    """linear(x, w)[..., a:b] becomes linear(x, w[a:b]): the logits of the action tokens instead of those of the whole
    vocabulary, the keys and values of a packed projection whose queries nothing reads. Where several slices are read,
    the rows from the first to the last of them stay.

    Before:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[4,4]
        %linear = linear(%x, %w) f32[1,4]
        %slice_1 = slice.Tensor(%linear, 1, 2, 9223372036854775807) f32[1,2]
        %relu = relu(%slice_1) f32[1,2]
        return action=%relu
    After:
        %x = source "x" f32[1,4]
        %w__2_4 = weight "w__2_4" f32[2,4]
        %linear = linear(%x, %w__2_4) f32[1,2]
        %relu = relu(%linear) f32[1,2]
        return action=%relu
    """

    def run(self, program: Program) -> PassResult:
        read = {n: rows for n in program.graph.nodes if (rows := _rows_read(n, program)) is not None}
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node in read:
                editor.replace(node, _narrowed(editor, node, *read[node]))
                notes.append(f"{node.name}: {read[node][1] - read[node][0]} of {node.meta['val'].shape[-1]} outputs")
            elif node.op == "call_function" and node.target is _ATEN.slice.Tensor and node.args[0] in read:
                (begin, end), first = _span(node), read[node.args[0]][0]
                linear = editor.map(node.args[0])
                whole = end - begin == linear.meta["val"].shape[-1]
                editor.replace(node, linear if whole else editor.emit(
                    node.target, (linear, node.args[1], begin - first, end - first), like=node))
            else:
                editor.copy(node)
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)


def _rows_read(node: Node, program: Program) -> tuple[int, int] | None:
    """(first, end) of the outputs that anything reads, where that is not all of them."""
    if node.op != "call_function" or node.target is not _ATEN.linear.default or any(
            a is not None and (a.op != "get_attr" or a.target not in program.parameters) for a in node.args[1:]):
        return None
    spans = [_span(u) for u in node.users]
    if not spans or any(s is None for s in spans):
        return None
    first, end = min(s[0] for s in spans), max(s[1] for s in spans)
    return (first, end) if end - first < node.meta["val"].shape[-1] else None


def _span(node: Node) -> tuple[int, int] | None:
    """What a slice along the last dimension reads, step 1."""
    if node.op != "call_function" or node.target is not _ATEN.slice.Tensor:
        return None
    shape = node.args[0].meta["val"].shape
    axis, begin, end, step = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1:])
    if axis % len(shape) != len(shape) - 1:
        return None
    begin, end, step = slice(begin, end, step).indices(shape[-1])
    return (begin, end) if step == 1 and end > begin else None


def _narrowed(editor: ProgramEditor, node: Node, first: int, end: int) -> Node:
    operands = [editor.map(node.args[0])]
    for arg in node.args[1:]:
        tensor = None if arg is None else editor.program.constants[arg.target]
        operands.append(None if tensor is None else editor.weight(
            f"{arg.target}__{first}_{end}", lambda t=tensor: t[first:end].contiguous()))
    return editor.emit(node.target, tuple(operands), like=node)
