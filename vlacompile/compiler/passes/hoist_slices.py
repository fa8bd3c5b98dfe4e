"""Of what is read only in part, that part is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.invariants import ATTENTION
from vlacompile.compiler.graph.ops import flops, is_pointwise, is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten
_PRODUCTS = frozenset({_ATEN.matmul.default, _ATEN.bmm.default, _ATEN.mm.default})
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default})
_REDUCTIONS = frozenset({_ATEN.mean.dim, _ATEN.sum.dim_IntList, _ATEN.amax.default, _ATEN.amin.default})
_RESHAPES = frozenset({_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default})
_LAYOUTS = _RESHAPES | {_ATEN.transpose.int, _ATEN.permute.default}


@dataclass(frozen=True)
class _Rows:
    """begin, end: the indices of the axis, counted from the front, that are read."""

    axis: int
    begin: int
    end: int


def _read(node: Node) -> _Rows | None:
    """What a slice or a select reads of its operand."""
    if node.op != "call_function" or node.target not in (_ATEN.slice.Tensor, _ATEN.select.int):
        return None
    shape = node.args[0].meta["val"].shape
    axis = (node.args[1] if len(node.args) > 1 else 0) % len(shape)
    size = shape[axis]
    if node.target is _ATEN.select.int:
        return _Rows(axis, node.args[2] % size, node.args[2] % size + 1)
    begin, end, step = (*node.args[2:], *(None, None, 1)[len(node.args) - 2:])
    begin, end, step = slice(begin, end, step).indices(size)
    return _Rows(axis, begin, end) if step == 1 and end > begin else None


def _operands(node: Node, rows: _Rows) -> dict[Node, _Rows] | None:
    """{operand: its rows that these rows of the node's result are made of}, other operands whole; None: not known, or
    they need more than that."""
    if node.op != "call_function" or is_random(node) or not isinstance(node.meta["val"], torch.Tensor):
        return None
    rank, first = node.meta["val"].dim(), node.args[0] if node.args else None
    if node.target is _ATEN.linear.default:
        return {first: rows} if rows.axis < rank - 1 and all(i is not first for i in node.args[1:]) else None
    if node.target is _ATEN.layer_norm.default:
        return {first: rows} if rows.axis < rank - len(node.args[1]) else None
    if node.target is ATTENTION:
        return _of_attention(node, rows)
    if node.target in _PRODUCTS:
        left = rows.axis == rank - 2 and first.meta["val"].dim() == rank and first is not node.args[1]
        return {first: rows} if left else None
    if node.target is _ATEN.cat.default:
        axis = (node.args[1] if len(node.args) > 1 else 0) % rank
        return dict.fromkeys(node.args[0], rows) if axis != rows.axis else None
    if node.target is _ATEN.slice.Tensor:  # of features; a slice of tokens is what is hoisted itself
        axis = (node.args[1] if len(node.args) > 1 else 0) % rank
        return {first: rows} if axis == rank - 1 != rows.axis else None
    if node.target in _REDUCTIONS:
        return _of_reduction(node, rows)
    if node.target in _SOFTMAX:
        return {first: rows} if rows.axis != node.args[1] % rank else None
    if node.target in _LAYOUTS:
        return _of_layout(node, rows)
    if not is_pointwise(node):
        return None
    found, size = {}, node.meta["val"].shape[rows.axis]
    for operand in node.all_input_nodes:
        axis = rows.axis - rank + operand.meta["val"].dim()
        if axis >= 0 and operand.meta["val"].shape[axis] == size:
            found[operand] = _Rows(axis, rows.begin, rows.end)
    return found


def _of_attention(node: Node, rows: _Rows) -> dict[Node, _Rows] | None:
    """The queries of the tokens that are read, which attend to all; not where the op itself masks by their place."""
    query, key, value = node.args[:3]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    causal = node.args[5] if len(node.args) > 5 else node.kwargs.get("is_causal", False)
    if rows.axis != node.meta["val"].dim() - 2 or causal or query in (key, value):
        return None
    found = {query: rows}
    if isinstance(mask, Node) and mask.meta["val"].shape[-2] > 1:
        found[mask] = _Rows(mask.meta["val"].dim() - 2, rows.begin, rows.end)
    return found


def _of_reduction(node: Node, rows: _Rows) -> dict[Node, _Rows] | None:
    """Over other axes, which stay with size 1."""
    x, axes = node.args[0], node.args[1] if len(node.args) > 1 else None
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    if not keeps or not axes or rows.axis in [a % x.meta["val"].dim() for a in axes]:
        return None
    return {x: rows}


def _of_layout(node: Node, rows: _Rows) -> dict[Node, _Rows] | None:
    """Through another order of the axes, or through axes that are split or joined beside the one that is read."""
    x, own = node.args[0], node.meta["val"].shape
    given = x.meta["val"].shape
    if node.target is _ATEN.transpose.int:
        a, b = (d % len(own) for d in node.args[1:3])
        return {x: _Rows({a: b, b: a}.get(rows.axis, rows.axis), rows.begin, rows.end)}
    if node.target is _ATEN.permute.default:
        return {x: _Rows(node.args[1][rows.axis] % len(own), rows.begin, rows.end)}
    before, size = own[: rows.axis].numel(), own[rows.axis]
    axes = [i for i, n in enumerate(given) if n == size and given[:i].numel() == before]
    return {x: _Rows(axes[-1], rows.begin, rows.end)} if axes else None


@dataclass(frozen=True)
class HoistSlices(GraphPass):
    """slice(f(x)) becomes f(slice(x)) where nothing reads other rows of f(x) and f acts on rows alone: a head is
    computed for the token that is read of it, a last layer for the tokens whose results are read, and what is read of
    joined tokens depends on these. Only where a Linear is on the way.

    Before:
        %x = source "x" f32[1,5,2]
        %w = weight "w" f32[4,2]
        %linear = linear(%x, %w) f32[1,5,4]
        %relu = relu(%linear) f32[1,5,4]
        %select = select.int(%relu, 1, -1) f32[1,4]
        return action=%select
    After:
        %x = source "x" f32[1,5,2]
        %w = weight "w" f32[4,2]
        %slice_1 = slice.Tensor(%x, 1, 4, 5) f32[1,1,2]
        %linear = linear(%slice_1, %w) f32[1,1,4]
        %relu = relu(%linear) f32[1,1,4]
        %select = select.int(%relu, 1, 0) f32[1,4]
        return action=%select
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        rows, reads = _wanted(program)
        if not reads:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in rows:
                _narrow(editor, node, rows)
            elif node in reads:
                read = _read(node)
                x = _part(editor, node.args[0], read, rows)
                editor.replace(node, x if node.target is _ATEN.slice.Tensor else editor.emit(
                    _ATEN.select.int, (x, node.args[1], 0), like=node))
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"computed what {len(reads)} slices read",))


def _wanted(program: Program) -> tuple[dict[Node, _Rows], set[Node]]:
    """({value: the rows of it that are computed}, the slices that read them)."""
    demanded, reads = _demanded(program)
    rows: dict[Node, _Rows] = {}
    for node in program.graph.nodes:  # a Linear is on the way
        own = demanded.get(node)
        if own is not None and (flops(node) > 0 or any(o in rows for o in _operands(node, own) or ())):
            rows[node] = own
    return rows, {r for r in reads if r.args[0] in rows}


def _demanded(program: Program) -> tuple[dict[Node, _Rows], list[Node]]:
    """({value: its rows that anything reads, where these are not all and it can be computed for them alone}, slices).
    """
    asked: dict[Node, list[_Rows | None]] = {}
    demanded: dict[Node, _Rows] = {}
    reads: list[Node] = []
    outputs = set(program.output_nodes())
    for node in reversed(program.graph.nodes):
        own = None if node in outputs else _union(node, asked.get(node, []))
        operands = None if own is None else _operands(node, own)
        if operands is not None:
            demanded[node] = own
        read = _read(node) if operands is None else None
        if read is not None:
            reads.append(node)
            operands = {node.args[0]: read}
        for operand in node.all_input_nodes:
            asked.setdefault(operand, []).append((operands or {}).get(operand))
    return demanded, reads


def _union(node: Node, asked: list[_Rows | None]) -> _Rows | None:
    """None: all rows, or rows of several axes."""
    if not asked or None in asked or len({r.axis for r in asked}) != 1:
        return None
    rows = _Rows(asked[0].axis, min(r.begin for r in asked), max(r.end for r in asked))
    return rows if rows.end - rows.begin < node.meta["val"].shape[rows.axis] else None


def _narrow(editor: ProgramEditor, node: Node, rows: Mapping[Node, _Rows]) -> None:
    """Emits the rows of the node that are read."""
    own = rows[node]
    operands = _operands(node, own)
    assert operands is not None
    narrowed = {o: _part(editor, o, r, rows) for o, r in operands.items()}

    def of(operand: Node) -> Node:
        return narrowed[operand] if operand in narrowed else editor.map(operand)

    args = map_arg(node.args, of)
    if node.target in _RESHAPES:
        shape = list(node.meta["val"].shape)
        shape[own.axis] = own.end - own.begin
        args = (args[0], shape)
    editor.replace(node, editor.emit(node.target, args, map_arg(dict(node.kwargs), of), like=node))


def _part(editor: ProgramEditor, value: Node, wanted: _Rows, rows: Mapping[Node, _Rows]) -> Node:
    """These rows of a value, of which perhaps only some are computed."""
    first = rows[value].begin if value in rows else 0
    made = editor.map(value)
    if wanted.end - wanted.begin == made.meta["val"].shape[wanted.axis]:
        return made
    return editor.emit(_ATEN.slice.Tensor, (made, wanted.axis, wanted.begin - first, wanted.end - first), like=value)
