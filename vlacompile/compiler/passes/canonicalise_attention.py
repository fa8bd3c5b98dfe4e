"""Attention over operands of any rank becomes attention over four dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ATTENTION_4D
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_SDPA = _ATEN.scaled_dot_product_attention.default


@dataclass(frozen=True)
class CanonicaliseAttention(GraphPass):
    """Attention has the four dimensions [batch, heads, tokens, width], the only ones that torch.onnx (2.13) writes:
    missing ones are of size 1, and of more the first become one.

    Before:
        %x = source "x" f32[1,5,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%x, %x, %x) f32[1,5,4]
        return action=%scaled_dot_product_attention
    After:
        %x = source "x" f32[1,5,4]
        %reshape = reshape(%x, [1, 1, 5, 4]) f32[1,1,5,4]
        %reshape_1 = reshape(%x, [1, 1, 5, 4]) f32[1,1,5,4]
        %reshape_2 = reshape(%x, [1, 1, 5, 4]) f32[1,1,5,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%reshape, %reshape_1, %reshape_2) f32[1,1,5,4]
        %reshape_3 = reshape(%scaled_dot_product_attention, [1, 5, 4]) f32[1,5,4]
        return action=%reshape_3
    """

    ensures = frozenset({ATTENTION_4D})

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            if node.target is _SDPA and node.meta["val"].dim() != 4:
                self._rewrite(editor, node)
                count += 1
            elif node.op != "output":
                editor.keep(node)
        if not count:
            return PassResult(program, False)
        return PassResult(editor.finish(), True, (f"{count} attentions over four dimensions",))

    def _rewrite(self, editor: ProgramEditor, node: Node) -> None:
        operands = [self._reshaped(editor, n, node) for n in node.args[:3]]
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if mask is not None:
            operands.append(self._mask(editor, mask, node))
        rest = {k: v for k, v in node.kwargs.items() if k != "attn_mask"}
        new = editor.emit(_SDPA, (*operands, *node.args[len(operands):]), rest, like=node)
        editor.replace(node, editor.emit(_ATEN.reshape.default, (new, list(node.meta["val"].shape)), like=node))

    def _reshaped(self, editor: ProgramEditor, value: Node, like: Node) -> Node:
        shape = list(value.meta["val"].shape)
        return editor.emit(_ATEN.reshape.default, (editor.map(value), _four(shape)), like=like)

    def _mask(self, editor: ProgramEditor, mask: Node, like: Node) -> Node:
        new, shape = editor.map(mask), list(mask.meta["val"].shape)
        if len(shape) < 3:
            return new
        lead = list(like.args[0].meta["val"].shape[:-2])
        if len(lead) > 2:  # dimensions that become one are there before
            shape = lead + shape[-2:]
            new = editor.emit(_ATEN.expand.default, (new, shape), like=like)
        return editor.emit(_ATEN.reshape.default, (new, _four(shape)), like=like)


def _four(shape: list[int]) -> list[int]:
    *lead, rows, columns = shape
    lead = [1, *lead] if len(lead) < 2 else [math.prod(lead[:-1]), lead[-1]]
    return [*([1] * (2 - len(lead))), *lead, rows, columns]
