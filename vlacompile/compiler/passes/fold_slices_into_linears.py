"""A Linear of which only some outputs are read computes only those."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.constant_reads import KnownIndices, Read, read_of, row_index
from vlacompile.compiler.passes.rules.parts import values_in

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class FoldSlicesIntoLinears(GraphPass):
    """linear(x, w)[..., a:b] becomes linear(x, w[a:b]), and linear(x, w)[..., ids] for constant ids linear(x, w[ids]):
    the logits of the action tokens instead of those of the whole vocabulary, the keys and values of a packed projection
    whose queries nothing reads. Where several slices are read, the rows from the first to the last of them stay.

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
        known = KnownIndices(program)
        found = {n: rows for n in program.graph.nodes if (rows := _rows_read(n, program, known)) is not None}
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node in found:
                editor.replace(node, narrowed(editor, node, found[node]))
                notes.append(f"{node.name}: {len(found[node])} of {node.meta['val'].shape[-1]} outputs")
            elif node.op == "call_function" and node.args and node.args[0] in found:
                editor.replace(node, _read_anew(editor, node, _read(node, known), found[node.args[0]]))
            else:
                editor.keep(node)
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)


def is_weighted(node: Node, program: Program) -> bool:
    """Whether the node is a Linear with weights of the model."""
    return node.op == "call_function" and node.target is _ATEN.linear.default and all(
        a is None or (a.op == "get_attr" and a.target in program.parameters) for a in node.args[1:])


def _rows_read(node: Node, program: Program, known: KnownIndices) -> tuple[int, ...] | None:
    """The outputs that anything reads, where that is not all of them."""
    if not is_weighted(node, program):
        return None
    reads = [_read(u, known) for u in node.users]
    if not reads or any(r is None for r in reads):
        return None
    rows = tuple(sorted({i for r in reads for i in r.indices}))
    if all(r.indices == tuple(range(r.indices[0], r.indices[-1] + 1)) for r in reads):
        rows = tuple(range(rows[0], rows[-1] + 1))
    return rows if len(rows) < node.meta["val"].shape[-1] else None


def _read(node: Node, known: KnownIndices) -> Read | None:
    """What an op reads along the last dimension of its first operand."""
    if node.op != "call_function" or node.kwargs or not node.args or not isinstance(node.args[0], Node):
        return None
    shape = tuple(node.args[0].meta["val"].shape)
    if any(node.args[0] in values_in([a]) for a in node.args[1:]):
        return None
    read = read_of(node.target, node.args, shape, known)
    return read if read is not None and read.indices and read.axis == len(shape) - 1 else None


def _read_anew(editor: ProgramEditor, node: Node, read: Read, rows: tuple[int, ...]) -> Node:
    """The op on what is left of its operand."""
    linear, place = editor.map(node.args[0]), {row: i for i, row in enumerate(rows)}
    local = tuple(place[i] for i in read.indices)
    if read.picked:
        return editor.emit(_ATEN.select.int, (linear, read.axis, local[0]), like=node)
    if local == tuple(range(len(rows))):
        return linear
    if local == tuple(range(local[0], local[-1] + 1)):
        return editor.emit(_ATEN.slice.Tensor, (linear, read.axis, local[0], local[-1] + 1), like=node)
    return editor.emit(_ATEN.index_select.default, (linear, read.axis, row_index(editor, local)), like=node)


def narrowed(editor: ProgramEditor, node: Node, rows: tuple[int, ...]) -> Node:
    """The Linear with these outputs alone."""
    weights = [None if a is None else rows_of(editor, a.target, rows) for a in node.args[1:]]
    return editor.emit(node.target, (editor.map(node.args[0]), *weights), like=node)


def rows_of(editor: ProgramEditor, name: str, rows: tuple[int, ...]) -> Node:
    """These rows of a weight; a node per weight and rows."""
    whole, tensor = rows == tuple(range(rows[0], rows[-1] + 1)), editor.program.constants[name]
    text = f"{rows[0]}_{rows[-1] + 1}" if whole else f"{len(rows)}_{zlib.crc32(repr(rows).encode()):08x}"

    def cut() -> torch.Tensor:
        part = tensor[rows[0]:rows[-1] + 1] if whole else tensor[torch.tensor(rows, device=tensor.device)]
        return part.contiguous()

    return editor.weight(f"{name}__{text}", cut)
