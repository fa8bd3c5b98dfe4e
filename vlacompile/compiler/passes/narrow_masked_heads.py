"""A head of which only some outputs can be chosen computes only those."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_pointwise
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.fold_slices_into_linears import is_weighted, narrowed
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.constant_reads import row_index

_ATEN = torch.ops.aten
_ALONG = frozenset({_ATEN.softmax, _ATEN._softmax, _ATEN.log_softmax, _ATEN._log_softmax})
_CHOOSING = frozenset({_ATEN.where, _ATEN.masked_fill})
_SCALED = frozenset({_ATEN.mul, _ATEN.div})  # by a positive number


@dataclass(frozen=True)
class NarrowMaskedHeads(GraphPass):
    """argmax(where(allowed, linear(x, w), -inf)) with a constant mask becomes ids[argmax(linear(x, w[ids]))]: of the
    vocabulary only the rows that can be chosen leave the head. Numbers that are added before (Gumbel noise, which makes
    the choice a sample), temperatures and softmaxes are computed for these rows alone.

    The choice is the same, also between equal numbers, as ids are in ascending order; only where every allowed number
    is -inf, or what is added to -inf is NaN or +inf, it was no choice, and is an allowed one now.

    Before:
        %x = source "x" f32[1,4]
        %w = weight "w" f32[5,4]
        %allowed = weight "allowed" bool[5]
        %linear = linear(%x, %w) f32[1,5]
        %where = where.ScalarOther(%allowed, %linear, -inf) f32[1,5]
        %argmax = argmax(%where, -1) i64[1]
        return action=%argmax
    After:
        %x = source "x" f32[1,4]
        %allowed = weight "allowed" bool[5]
        %w__3_5446ce83 = weight "w__3_5446ce83" f32[3,4]
        %rows_1_3_4 = constant "rows_1_3_4" i64[3]
        %index_select = index_select(%allowed, 0, %rows_1_3_4) bool[3]
        %linear_1 = linear(%x, %w__3_5446ce83) f32[1,3]
        %where_1 = where.ScalarOther(%index_select, %linear_1, -inf) f32[1,3]
        %argmax = argmax(%where_1, -1) i64[1]
        %index = index.Tensor(%rows_1_3_4, [%argmax]) i64[1]
        return action=%index
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        found = {n: choice for n in program.graph.nodes if (choice := _choice(n, program)) is not None}
        if not found:
            return PassResult(program, False)
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node in found:
                ids = found[node]
                editor.replace(node, _chosen(editor, node, ids))
                notes.append(f"{node.name}: {len(ids)} of {node.args[0].meta['val'].shape[-1]} outputs can be chosen")
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, tuple(notes))


def _choice(node: Node, program: Program) -> tuple[int, ...] | None:
    """The ids among which an argmax over the last dimension chooses, where they are not all and a head gives them."""
    if node.target is not _ATEN.argmax.default:
        return None
    val = node.args[0].meta["val"]
    dim = node.args[1] if len(node.args) > 1 else None
    last = dim is not None and dim % val.dim() == val.dim() - 1
    if not (last or (dim is None and val.numel() == val.shape[-1])):
        return None
    hidden = _hidden(node.args[0], program)
    if hidden is None or not 0 < int(hidden.sum()) < len(hidden):
        return None
    heads = _heads(node, node.args[0], program)
    return tuple((~hidden).nonzero()[:, 0].tolist()) if heads else None


def _hidden(node: Node, program: Program) -> torch.Tensor | None:
    """bool[V]: positions along the last dimension that are never the largest; None: it is not known of any."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    packet, args = node.target.overloadpacket, node.args
    size = node.meta["val"].shape[-1] if isinstance(node.meta["val"], torch.Tensor) and node.meta["val"].dim() else 0
    of = lambda i: _hidden(args[i], program) if isinstance(args[i], Node) else None
    if packet is _ATEN.where and len(args) == 3:
        shown = _row(args[0], size, program)
        return None if shown is None or not _is_minus_infinity(args[2], program) else ~shown | _or_none(of(1), size)
    if packet is _ATEN.masked_fill:
        mask = _row(args[1], size, program)
        return None if mask is None or not _is_minus_infinity(args[2], program) else mask | _or_none(of(0), size)
    if packet is _ATEN.add and not node.kwargs:
        row = _row(args[1], size, program)
        masks = [of(0), of(1), None if row is None or row.dtype == torch.bool else row == -math.inf]
        known = [m for m in masks if m is not None]
        return torch.stack(known).any(0) if known else None
    if packet is _ATEN.sub and not node.kwargs:
        return of(0)
    if packet in _SCALED and not node.kwargs:
        factor = _number(args[1], program)
        return of(0) if factor is not None and 0 < factor < math.inf else None
    if packet is _ATEN._to_copy and node.meta["val"].is_floating_point():
        return of(0)
    if packet in _ALONG and args[1] % node.meta["val"].dim() == node.meta["val"].dim() - 1:
        return of(0)
    return None


def _or_none(mask: torch.Tensor | None, size: int) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.bool) if mask is None else mask


def _constant(value: object, program: Program) -> torch.Tensor | None:
    found = program.constants[value.target] if isinstance(value, Node) and value.op == "get_attr" else None
    return None if found is None or found.is_meta else found


def _number(value: object, program: Program) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = _constant(value, program)
    return float(found) if found is not None and found.numel() == 1 and found.dtype != torch.bool else None


def _is_minus_infinity(value: object, program: Program) -> bool:
    found = _number(value, program)
    if found is None:
        row = _constant(value, program)
        return row is not None and row.is_floating_point() and bool((row == -math.inf).all())
    return found == -math.inf


def _row(value: object, size: int, program: Program) -> torch.Tensor | None:
    """A constant with one number per position, the same for all that stands before the last dimension."""
    found = _constant(value, program)
    if found is None or not found.dim() or found.shape[-1] != size or found.numel() != size:
        return None
    return found.reshape(size)


def _heads(reader: Node, node: Node, program: Program) -> list[Node]:
    """The heads among what `node` is computed from position by position, by values that nothing else reads; empty: it
    is computed otherwise, too."""
    if is_weighted(node, program):
        return [node] if set(node.users) == {reader} else []
    if not _is_by_position(node) or set(node.users) != {reader}:
        return []
    return [h for i in node.all_input_nodes for h in _heads(node, i, program)]


def _is_by_position(node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return is_pointwise(node) or node.target.overloadpacket in _ALONG | _CHOOSING


def _chosen(editor: ProgramEditor, node: Node, ids: tuple[int, ...]) -> Node:
    program = editor.program
    size = node.args[0].meta["val"].shape[-1]
    narrow = _narrower(editor, program, size, ids)
    choice = editor.emit(node.target, (narrow(node.args[0]), *node.args[1:]), dict(node.kwargs), like=node)
    return editor.emit(_ATEN.index.Tensor, (row_index(editor, ids), [choice]), like=node)


def _narrower(editor: ProgramEditor, program: Program, size: int, ids: tuple[int, ...]) -> Callable[[Node], Node]:
    """A function that gives of a value the positions `ids` of its last dimension."""

    def narrow(value):
        if isinstance(value, (list, tuple)):
            return type(value)(map(narrow, value))
        if not isinstance(value, Node):
            return value
        val = value.meta["val"]
        if not val.dim() or val.shape[-1] != size:  # one for all positions
            return editor.map(value)
        if is_weighted(value, program):
            return narrowed(editor, value, ids)
        if _is_by_position(value):
            return editor.emit(value.target, narrow(value.args), narrow_all(value.kwargs), like=value)
        return editor.emit(_ATEN.index_select.default, (editor.map(value), val.dim() - 1, row_index(editor, ids)),
                           like=value)

    def narrow_all(kwargs):
        return {k: narrow(v) for k, v in kwargs.items()}

    return narrow
