"""Computes every distinct value once."""

from __future__ import annotations

from dataclasses import dataclass

from vlacompile.compiler.graph.equal_values import representatives
from vlacompile.compiler.graph.invariants import NO_COMMON_SUBEXPRESSIONS
from vlacompile.compiler.graph.program import ITERATION, Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult


@dataclass(frozen=True)
class EliminateCommonSubexpressions(GraphPass):
    """Give equal ops on equal inputs, and constants of equal content, one node.

    Before:
        %x = source "x" f32[1,4]
        %relu = relu(%x) f32[1,4]
        %relu_1 = relu(%x) f32[1,4]
        %add = add.Tensor(%relu, %relu_1) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %relu = relu(%x) f32[1,4]
        %add = add.Tensor(%relu, %relu) f32[1,4]
        return action=%add
    """

    ensures = frozenset({NO_COMMON_SUBEXPRESSIONS})
    destroys = frozenset()

    def run(self, program: Program) -> PassResult:
        first_equal = representatives(program)
        merged = sum(first is not node for node, first in first_equal.items())
        if not merged:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        once = {first for node, first in first_equal.items() if node.meta.get(ITERATION) != first.meta.get(ITERATION)}
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node in once:  # it is of no iteration of a loop
                editor.copy(node).meta.pop(ITERATION, None)
            elif first_equal[node] is node:
                editor.keep(node)
            else:
                editor.replace(node, editor.map(first_equal[node]))
        return PassResult(editor.finish(), True, (f"merged {merged} equal values",))
