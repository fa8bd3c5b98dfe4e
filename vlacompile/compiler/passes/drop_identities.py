"""Removes ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten
_ALIASES = frozenset({_ATEN.alias, _ATEN.detach, _ATEN.lift_fresh_copy, _ATEN.detach_, _ATEN.lift_fresh})
_COPIES = frozenset({_ATEN._to_copy, _ATEN.to, _ATEN.clone})
_DROPOUTS = frozenset({_ATEN.dropout, _ATEN.feature_dropout, _ATEN.alpha_dropout})


def _same(node: Node) -> Node | None:
    """The operand that `node` returns unchanged, or None."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    packet = node.target.overloadpacket
    if packet in _ALIASES:
        return node.args[0]
    if packet in _DROPOUTS:
        return None if is_random(node) else node.args[0]
    if packet in _COPIES:
        source, val = node.args[0].meta["val"], node.meta["val"]
        return node.args[0] if source.dtype == val.dtype else None
    if packet is _ATEN.copy:  # what was there is overwritten
        source, val = node.args[1].meta["val"], node.meta["val"]
        fits = source.dtype == val.dtype and source.shape == val.shape
        return node.args[1] if fits else None
    return None


def _read(node: Node) -> list[Node] | None:
    """The operands of a concatenation without those that add nothing to it (PyTorch ignores those of shape [0] among
    others of any rank); None where there is none of these."""
    if node.op != "call_function" or node.target is not _ATEN.cat.default or not node.meta["val"].numel():
        return None
    left = [n for n in node.args[0] if n.meta["val"].numel()]
    return left if 0 < len(left) < len(node.args[0]) else None


def _is_empty(node: Node) -> bool:
    """Whether a value that is computed has no elements: nothing that it could depend on."""
    val = node.meta.get("val")
    return node.op == "call_function" and isinstance(val, torch.Tensor) and not val.numel()


@dataclass(frozen=True)
class DropIdentities(GraphPass):
    """Replace aliases, copies of the same type, overwriting copies, and dropout in eval mode by their input.
    Operands without elements leave a concatenation (`torch.cat([torch.tensor([]), x])`, the tokens of no camera, a
    cache that is empty at first); what else is without elements is a constant.

    Before:
        %x = source "x" f32[1,4]
        %clone = clone(%x) f32[1,4]
        %relu = relu(%clone) f32[1,4]
        return action=%relu
    After:
        %x = source "x" f32[1,4]
        %relu = relu(%x) f32[1,4]
        return action=%relu
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        found = {n: same for n in program.graph.nodes if (same := _same(n)) is not None}
        shorter = {n: left for n in program.graph.nodes if (left := _read(n)) is not None}
        empty = {n for n in program.graph.nodes if _is_empty(n)}
        if not found and not shorter and not empty:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in empty:
                editor.replace(node, _empty(editor, node.meta["val"]))
            elif node in found:
                editor.replace(node, editor.map(found[node]))
            elif node in shorter:
                editor.replace(node, _joined(editor, node, shorter[node]))
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"dropped {len({*found, *shorter, *empty})} identities",))


def _empty(editor: ProgramEditor, val: torch.Tensor) -> Node:
    name = "_".join(["empty", str(val.dtype).removeprefix("torch."), *map(str, val.shape)])
    return editor.constant(name, torch.empty(val.shape, dtype=val.dtype))


def _joined(editor: ProgramEditor, node: Node, operands: list[Node]) -> Node:
    new = editor.map(operands[0])
    if len(operands) > 1:
        new = editor.emit(node.target, (list(map(editor.map, operands)), *node.args[1:]), like=node)
    wanted = node.meta["val"].dtype  # what is ignored counts in the type of the result
    return new if new.meta["val"].dtype == wanted else editor.emit(
        _ATEN._to_copy.default, (new,), {"dtype": wanted}, like=node)
