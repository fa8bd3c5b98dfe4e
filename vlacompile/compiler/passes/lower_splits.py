"""Writes the parts that a tensor is split into as slices of it."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_SPLITS = frozenset({_ATEN.split, _ATEN.split_with_sizes, _ATEN.split_copy, _ATEN.split_with_sizes_copy, _ATEN.chunk,
                     _ATEN.unsafe_chunk, _ATEN.unsafe_split, _ATEN.unsafe_split_with_sizes, _ATEN.tensor_split,
                     _ATEN.unbind, _ATEN.unbind_copy})


def _is_split(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and (
        node.target.overloadpacket in _SPLITS)


@dataclass(frozen=True)
class LowerSplits(GraphPass):
    """getitem(split(x, sizes), i) becomes the slice of x that it is, getitem(unbind(x), i) a select: passes then know
    one way to read a part of a value, and a loop's body has no op with several results for it.

    Before:
        %x = source "x" f32[1,4]
        %split = split.Tensor(%x, 2, 1) (f32[1,2], f32[1,2])
        %getitem = getitem(%split, 0) f32[1,2]
        %getitem_1 = getitem(%split, 1) f32[1,2]
        %sub = sub.Tensor(%getitem, %getitem_1) f32[1,2]
        return action=%sub
    After:
        %x = source "x" f32[1,4]
        %slice_1 = slice.Tensor(%x, 1, 0, 2) f32[1,2]
        %slice_2 = slice.Tensor(%x, 1, 2, 4) f32[1,2]
        %sub = sub.Tensor(%slice_1, %slice_2) f32[1,2]
        return action=%sub
    """

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node.target is operator.getitem and _is_split(node.args[0]):
                editor.replace(node, _part(editor, node))
                count += 1
            else:
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"read {count} parts as slices",)) if count else PassResult(
            program, False)


def _part(editor: ProgramEditor, node: Node) -> Node:
    split, index = node.args
    names = [a.name for a in split.target._schema.arguments]
    given = dict(zip(names, split.args, strict=False)) | split.kwargs
    whole = split.args[0].meta["val"]
    dim = given.get("dim", 0) % whole.dim()
    source, index = editor.map(split.args[0]), index % len(split.meta["val"])
    if split.target.overloadpacket in (_ATEN.unbind, _ATEN.unbind_copy):
        return editor.emit(_ATEN.select.int, (source, dim, index), like=node)
    ends = [0]
    for part in split.meta["val"]:
        ends.append(ends[-1] + int(part.shape[dim]))
    begin, end = ends[index:index + 2]
    if end - begin == whole.shape[dim]:
        return source
    return editor.emit(_ATEN.slice.Tensor, (source, dim, begin, end), like=node)
