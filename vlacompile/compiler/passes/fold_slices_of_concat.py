"""Reads whole parts of a concatenation directly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten


def _parts(node: Node, source: Node) -> list[Node] | None:
    """The whole parts that a slice of `source`, a concatenation, covers; or None."""
    _, axis, begin, end, step = (*node.args, *(None, 0, None, None, 1)[len(node.args):])
    if step != 1 or source.op != "call_function" or source.target is not _ATEN.cat.default:
        return None
    rank, axis = source.meta["val"].dim(), axis % source.meta["val"].dim()
    if (source.args[1] if len(source.args) > 1 else 0) % rank != axis:
        return None
    total = source.meta["val"].shape[axis]
    begin, end = (min(total, v + total if v < 0 else v) for v in (begin or 0, total if end is None else end))
    found, at = [], 0
    for part in source.args[0]:
        size = part.meta["val"].shape[axis]
        if begin <= at and at + size <= end and size > 0:
            found.append(part)
        at += size
    whole = sum(p.meta["val"].shape[axis] for p in found) == end - begin > 0
    return found if whole and all(p.meta["val"].dtype == node.meta["val"].dtype for p in found) else None


@dataclass(frozen=True)
class FoldSlicesOfConcat(GraphPass):
    """slice(cat([a, b]), whole parts) becomes these parts: a key/value cache that is cropped to its prefix after every
    denoising step is then seen to be the prefix, and leaves the loop.

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

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            # Of what stands for its operand now: that may have become a concatenation, or another one.
            is_slice = node.op == "call_function" and node.target is _ATEN.slice.Tensor
            parts = _parts(node, editor.map(node.args[0])) if is_slice else None
            if parts is not None:
                new = parts[0]
                if len(parts) > 1:
                    new = editor.emit(_ATEN.cat.default, (parts, node.args[1]), like=node)
                editor.replace(node, new)
                count += 1
            elif node.op != "output":
                editor.copy(node)
        if not count:
            return PassResult(program, False)
        return PassResult(editor.finish(), True, (f"read {count} slices directly",))
