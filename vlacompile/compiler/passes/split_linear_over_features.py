"""Splits a Linear over concatenated features that change at different rates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.compiler.passes.rules.pointwise_chain import groups_of, part_of, rates_of

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class SplitLinearOverFeatures(GraphPass):
    """linear(cat([a, b], features), w) becomes linear(a, w_a) + linear(b, w_b) when a and b change at different rates:
    what the slower one contributes is then kept, and where it is the loop's index alone it is a table. Looks through
    element-wise ops of one operand between the two (FiLM: linear(mish(cat([time, observation])))).

    Before:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %w = weight "w" f32[4,5]
        %cat = cat([%a, %b], 1) f32[1,5]
        %linear = linear(%cat, %w) f32[1,4]
        return action=%linear
    After:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %w__0_2 = weight "w__0_2" f32[4,2]
        %w__2_5 = weight "w__2_5" f32[4,3]
        %linear = linear(%a, %w__0_2) f32[1,4]
        %linear_1 = linear(%b, %w__2_5) f32[1,4]
        %add = add.Tensor(%linear, %linear_1) f32[1,4]
        return action=%add
    """

    requires = frozenset({ENGINE_TYPES})

    def run(self, program: Program) -> PassResult:
        rate = rates_of(program)
        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            groups = self._groups(node, rate)
            if groups is None:
                editor.keep(node)
                continue
            editor.replace(node, self._split(editor, node, groups))
            notes.append(f"{node.name}: split into {len(groups)}")
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)

    def _groups(self, node: Node, rate) -> list[list[Node]] | None:
        if node.op != "call_function" or node.target is not _ATEN.linear.default or node.args[1].op != "get_attr":
            return None
        return groups_of(node.args[0], -1, rate)

    def _split(self, editor: ProgramEditor, node: Node, groups: list[list[Node]]) -> Node:
        name = node.args[1].target
        weight, total, begin = editor.program.constants[name], None, 0
        for parts in groups:
            x = part_of(editor, node.args[0], parts, -1)
            end = begin + sum(p.meta["val"].shape[-1] for p in parts)
            part = editor.weight(f"{name}__{begin}_{end}", lambda b=begin, e=end: weight[:, b:e].contiguous())
            last = end == weight.shape[1]
            bias = editor.map_args(tuple(node.args[2:])) if last else ()
            product = editor.emit(node.target, (x, part, *bias), like=node)
            total = product if total is None else editor.emit(_ATEN.add.Tensor, (total, product), like=node)
            begin = end
        assert total is not None
        return total
