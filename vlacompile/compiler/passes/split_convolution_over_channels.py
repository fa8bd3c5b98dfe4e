"""Splits a convolution over concatenated channels that change at different rates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.pointwise_chain import groups_of, part_of, rates_of

_ATEN = torch.ops.aten
_CONVOLUTIONS = frozenset({_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default})


@dataclass(frozen=True)
class SplitConvolutionOverChannels(GraphPass):
    """conv(cat([a, b], channels), w) becomes conv(a, w_a) + conv(b, w_b) when a and b change at different rates: what a
    goal image contributes is kept for the task, and that of an absent one is a constant. Looks through element-wise ops
    of one operand between the two, as a normalisation of pixels.

    Before:
        %a = source "a" f32[1,2,3]
        %w = weight "w" f32[1,3,3]
        %zeros = weight "zeros" f32[1,1,3]
        %cat = cat([%a, %zeros], 1) f32[1,3,3]
        %conv1d = conv1d(%cat, %w) f32[1,1,1]
        return action=%conv1d
    After:
        %a = source "a" f32[1,2,3]
        %w = weight "w" f32[1,3,3]
        %zeros = weight "zeros" f32[1,1,3]
        %slice_1 = slice.Tensor(%w, 1, 0, 2) f32[1,2,3]
        %conv1d = conv1d(%a, %slice_1) f32[1,1,1]
        %slice_2 = slice.Tensor(%w, 1, 2, 3) f32[1,1,3]
        %conv1d_1 = conv1d(%zeros, %slice_2) f32[1,1,1]
        %add = add.Tensor(%conv1d, %conv1d_1) f32[1,1,1]
        return action=%add
    """

    requires = frozenset({ENGINE_TYPES})

    def run(self, program: Program) -> PassResult:
        rate = rates_of(program, fills=False)
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            groups = groups_of(node.args[0], 1, rate) if _is_whole(node) and rate(node.args[1]) < 0 else None
            if groups is None:
                editor.keep(node)
                continue
            editor.replace(node, self._split(editor, node, groups))
            notes.append(f"{node.name}: split into {len(groups)}")
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)

    @staticmethod
    def _split(editor: ProgramEditor, node: Node, groups: list[list[Node]]) -> Node:
        total, begin, rest = None, 0, tuple(node.args[3:])
        for parts in groups:
            x = part_of(editor, node.args[0], parts, 1)
            end = begin + sum(p.meta["val"].shape[1] for p in parts)
            weight = editor.emit(_ATEN.slice.Tensor, (editor.map(node.args[1]), 1, begin, end), like=node)
            bias = node.args[2] if len(node.args) > 2 and end == node.args[1].meta["val"].shape[1] else None
            bias = editor.map(bias) if isinstance(bias, Node) else None
            given = (x, weight, bias, *rest) if rest or bias is not None else (x, weight)
            product = editor.emit(node.target, given, like=node)
            total = product if total is None else editor.emit(_ATEN.add.Tensor, (total, product), like=node)
            begin = end
        assert total is not None
        return total


def _is_whole(node: Node) -> bool:
    """A convolution of a batch in which every output sees every channel."""
    if node.op != "call_function" or node.target not in _CONVOLUTIONS or node.kwargs:
        return False
    weight, x = node.args[1].meta["val"], node.args[0].meta["val"]
    return x.dim() == weight.dim() and x.shape[1] == weight.shape[1]
