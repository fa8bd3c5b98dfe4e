"""Splits a Linear over concatenated features that change at different rates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch.fx import Node

from vlacompile.compiler.graph.delay import HISTORY
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.invariants import ENGINE_TYPES
from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult
from vlacompile.vocabulary import UPDATES

_ATEN = torch.ops.aten
_LONGEST = 16  # element-wise ops that are looked through: every Linear behind them does them again


def _behind(node: Node) -> tuple[Node, list[Node]]:
    """(the concatenation that `node` is made from, the element-wise ops of one operand between, last first)."""
    through: list[Node] = []
    while (len(through) < _LONGEST and node.op == "call_function" and is_pointwise(node) and not is_random(node)
           and node.all_input_nodes == [node.args[0]]):
        spend()
        through.append(node)
        node = node.args[0]
    return node, through


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
        deps = dependencies(program)
        rates = {n: UPDATES[s.update] for n, s in program.sources.items()} | {HISTORY: UPDATES["observation"]}

        def rate(node: Node) -> int:
            return max((rates[s] for s in deps[node]), default=-1)

        editor, notes = ProgramEditor(program), []
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            groups = self._groups(node, rate)
            if groups is None:
                editor.copy(node)
                continue
            editor.replace(node, self._split(editor, node, groups))
            notes.append(f"{node.name}: split into {len(groups)}")
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)

    def _groups(self, node: Node, rate) -> list[list[Node]] | None:
        """Neighbouring parts of one rate together; None where there is nothing to split."""
        if node.op != "call_function" or node.target is not _ATEN.linear.default or node.args[1].op != "get_attr":
            return None
        cat, _ = _behind(node.args[0])
        if cat.op != "call_function" or cat.target is not _ATEN.cat.default:
            return None
        rank = cat.meta["val"].dim()
        if any(p.meta["val"].dtype != cat.meta["val"].dtype for p in cat.args[0]):  # cat converts, Linear would not
            return None
        if (cat.args[1] if len(cat.args) > 1 else 0) % rank != rank - 1:
            return None
        groups = [list(parts) for _, parts in groupby(cat.args[0], key=rate)]
        return groups if len(groups) > 1 else None

    def _split(self, editor: ProgramEditor, node: Node, groups: list[list[Node]]) -> Node:
        name = node.args[1].target
        weight, (_, through), total, begin = editor.program.constants[name], _behind(node.args[0]), None, 0
        for parts in groups:
            x = editor.map(parts[0]) if len(parts) == 1 else editor.emit(
                _ATEN.cat.default, ([editor.map(p) for p in parts], -1))
            for op in reversed(through):
                x = editor.emit(op.target, (x, *op.args[1:]), dict(op.kwargs), like=op)
            end = begin + sum(p.meta["val"].shape[-1] for p in parts)
            part = editor.weight(f"{name}__{begin}_{end}", lambda b=begin, e=end: weight[:, b:e].contiguous())
            last = end == weight.shape[1]
            bias = editor.map_args(tuple(node.args[2:])) if last else ()
            product = editor.emit(node.target, (x, part, *bias), like=node)
            total = product if total is None else editor.emit(_ATEN.add.Tensor, (total, product), like=node)
            begin = end
        assert total is not None
        return total
