"""Removes ops that return their input unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.capture.ops import is_random
from vlacompile.capture.program import Program, ProgramEditor
from vlacompile.passes.result import PassResult

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


@dataclass(frozen=True)
class DropIdentities:
    """Replace aliases, copies of the same type, overwriting copies, and dropout in eval mode by their input.

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

    def run(self, program: Program) -> PassResult:
        found = {n: same for n in program.graph.nodes if (same := _same(n)) is not None}
        if not found:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in found:
                editor.replace(node, editor.map(found[node]))
            elif node.op != "output":
                editor.copy(node)
        return PassResult(editor.finish(), True, (f"dropped {len(found)} identities",))
