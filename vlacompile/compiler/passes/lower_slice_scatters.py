"""Writes assignments to slices as concatenations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten


def _range(node: Node) -> tuple[int, int, int, int] | None:
    """(axis, begin, end, size) of a slice_scatter with step 1, or of a select_scatter, that keeps the type; or None."""
    if node.op == "call_function" and node.target is _ATEN.select_scatter.default:
        base, source, axis, index = node.args
        size = base.meta["val"].shape[axis]
        index = index + size if index < 0 else index
        same = source.meta["val"].dtype == base.meta["val"].dtype
        return (axis % base.meta["val"].dim(), index, index + 1, size) if same else None
    if node.op != "call_function" or node.target is not _ATEN.slice_scatter.default:
        return None
    base, source, axis, begin, end, step = (*node.args, *(None, None, 0, None, None, 1)[len(node.args):])
    val = base.meta["val"]
    size = val.shape[axis]
    begin, end = (min(size, v + size if v < 0 else v) for v in (begin or 0, size if end is None else end))
    same = step == 1 and source.meta["val"].dtype == val.dtype and source.meta["val"].dim() == val.dim()
    return (axis % val.dim(), begin, end, size) if same else None


@dataclass(frozen=True)
class LowerSliceScatters(GraphPass):
    """slice_scatter(x, a, begin, end), which is how `x[begin:end] = a` is traced, becomes cat([x before, a, x after]),
    and so does select_scatter, which `x[k] = a` is traced as. Where slice after slice of an empty tensor is assigned
    (rotary embeddings), the empty tensor goes, as soon as `fold_slices_of_concat` reads the parts.

    Before:
        %x = source "x" f32[1,5]
        %a = source "a" f32[1,2]
        %slice_scatter = slice_scatter(%x, %a, 1, 0, 2) f32[1,5]
        %relu = relu(%slice_scatter) f32[1,5]
        return action=%relu
    After:
        %x = source "x" f32[1,5]
        %a = source "a" f32[1,2]
        %slice_1 = slice.Tensor(%x, 1, 2, 5) f32[1,3]
        %cat = cat([%a, %slice_1], 1) f32[1,5]
        %relu = relu(%cat) f32[1,5]
        return action=%relu
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            found = _range(node)
            if found is not None:
                axis, begin, end, size = found
                base, source = (editor.map(n) for n in node.args[:2])
                if node.target is _ATEN.select_scatter.default:
                    source = editor.emit(_ATEN.unsqueeze.default, (source, axis), like=node)
                parts = [editor.emit(_ATEN.slice.Tensor, (base, axis, 0, begin), like=node)] if begin > 0 else []
                parts.append(source)
                if end < size:
                    parts.append(editor.emit(_ATEN.slice.Tensor, (base, axis, end, size), like=node))
                whole = source if len(parts) == 1 else editor.emit(_ATEN.cat.default, (parts, axis), like=node)
                editor.replace(node, whole)
                count += 1
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"wrote {count} scatters",)) if count else PassResult(program, False)
