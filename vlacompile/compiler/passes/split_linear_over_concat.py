"""Splits a Linear over concatenated tokens, so that each part runs at the rate of its own sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten


def _tokens(cat: Node) -> tuple[list[Node], int] | None:
    """(parts, axis) of a concatenation along an axis before the last."""
    if cat.op != "call_function" or cat.target is not _ATEN.cat.default:
        return None
    if any(p.meta["val"].dtype != cat.meta["val"].dtype for p in cat.args[0]):  # cat converts, Linear would not
        return None
    rank = cat.meta["val"].dim()
    axis = (cat.args[1] if len(cat.args) > 1 else 0) % rank
    return (list(cat.args[0]), axis) if axis != rank - 1 else None


@dataclass(frozen=True)
class SplitLinearOverConcat(GraphPass):
    """linear(cat([a, b], tokens)) becomes cat([linear(a), linear(b)], tokens) when a and b depend on
    different sources: keys and values of cached language tokens are then cached too. Exact: a Linear
    acts on each token alone.

    Before:
        %a = source "a" f32[1,2,4]
        %b = source "b" f32[1,3,4]
        %w = weight "w" f32[4,4]
        %cat = cat([%a, %b], 1) f32[1,5,4]
        %linear = linear(%cat, %w) f32[1,5,4]
        return action=%linear
    After:
        %a = source "a" f32[1,2,4]
        %b = source "b" f32[1,3,4]
        %w = weight "w" f32[4,4]
        %linear = linear(%a, %w) f32[1,2,4]
        %linear_1 = linear(%b, %w) f32[1,3,4]
        %cat_1 = cat([%linear, %linear_1], 1) f32[1,5,4]
        return action=%cat_1
    """

    def run(self, program: Program) -> PassResult:
        """Until nothing is left to split: a Linear that reads a split one reads a concatenation then."""
        result = self._once(program)
        changed, notes = result.changed, result.notes
        while result.changed:
            program = result.program
            result = self._once(program)
            notes += result.notes if result.changed else ()
        return PassResult(program, changed, notes)

    def _once(self, program: Program) -> PassResult:
        deps = dependencies(program)
        editor, notes, changed = ProgramEditor(program), [], False
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            tokens = _tokens(node.args[0]) if node.target is _ATEN.linear.default else None
            if tokens is not None and len({deps[p] for p in tokens[0]}) > 1:
                editor.replace(node, self._split(editor, node, node.args[0], deps))
                notes.append(f"{node.name}: split into {len(tokens[0])}")
                changed = True
                continue
            if tokens is not None:
                notes.append(f"{node.name}: kept, all parts depend on the same sources")
            editor.keep(node)
        return PassResult(editor.finish() if changed else program, changed, tuple(notes))

    def _split(self, editor: ProgramEditor, linear: Node, x: Node, deps: Mapping[Node, frozenset[str]]) -> Node:
        """The Linear of x, part by part; parts may be concatenations themselves."""
        spend()
        tokens = _tokens(x)
        if tokens is None or len({deps[p] for p in tokens[0]}) == 1:
            rest = editor.map_args(tuple(linear.args[1:]))
            return editor.emit(linear.target, (editor.map(x), *rest), like=linear)
        outs = [self._split(editor, linear, p, deps) for p in tokens[0]]
        return editor.emit(_ATEN.cat.default, (outs, tokens[1]), like=linear)
