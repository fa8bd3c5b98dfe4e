"""Of a table of which only known rows are read, those rows stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.fold_slices_into_linears import rows_of
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.constant_reads import KnownIndices

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class FoldPicksIntoTables(GraphPass):
    """embedding(w, known[i]) becomes embedding(w[known], i): where some words of a vocabulary alone can be chosen, the
    others leave the table that the next step reads, as they leave the head; where both have the same weights, they
    share these rows.

    Before:
        %x = source "x" f32[1,2,3]
        %w = weight "w" f32[6,4]
        %known = weight "known" i64[3]
        %argmax = argmax(%x, -1) i64[1,2]
        %index = index.Tensor(%known, [%argmax]) i64[1,2]
        %embedding = embedding(%w, %index) f32[1,2,4]
        return action=%embedding
    After:
        %x = source "x" f32[1,2,3]
        %w__3_14472cf0 = weight "w__3_14472cf0" f32[3,4]
        %argmax = argmax(%x, -1) i64[1,2]
        %embedding = embedding(%w__3_14472cf0, %argmax) f32[1,2,4]
        return action=%embedding
    """

    def run(self, program: Program) -> PassResult:
        known, editor, notes = KnownIndices(program), ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            rows = _rows_read(node, program, known)
            if rows is None:
                editor.keep(node)
                continue
            table, place = node.args[:2]
            editor.replace(node, editor.emit(
                node.target, (rows_of(editor, table.target, rows), editor.map(place.args[1][0])), like=node))
            notes.append(f"{node.name}: {len(rows)} of {table.meta['val'].shape[0]} rows")
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)


def _rows_read(node: Node, program: Program, known: KnownIndices) -> tuple[int, ...] | None:
    """The rows of an embedding's table that can be read, in the order in which they are numbered."""
    if node.op != "call_function" or node.target is not _ATEN.embedding.default or len(node.args) > 2:
        return None
    table, place = node.args
    if table.op != "get_attr" or table.target not in program.parameters or place.op != "call_function" or (
            place.target is not _ATEN.index.Tensor):
        return None
    ids, indices = place.args
    # an argmax is a number from 0 on; a negative one would be counted from the end, but by no embedding
    if len(indices) != 1 or indices[0].op != "call_function" or indices[0].target is not _ATEN.argmax.default:
        return None
    rows = known(ids) if ids.meta["val"].dim() == 1 else None
    return None if rows is None else tuple(rows.tolist())
