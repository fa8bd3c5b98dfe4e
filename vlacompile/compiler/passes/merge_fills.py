"""Tensors that are filled with one number in one shape are one tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.lower_fills import filled_with


@dataclass(frozen=True)
class MergeFills(GraphPass):
    """zeros_like(x) becomes an earlier zeros_like(y) of its shape, where that depends on no source that x does not: a
    decoder that is fed zeros in the place of the tokens that it gave so far then does the same for every token.

    Before:
        %x = source "x" f32[1,4]
        %zeros_like = zeros_like(%x) f32[1,4]
        %relu = relu(%x) f32[1,4]
        %zeros_like_1 = zeros_like(%relu) f32[1,4]
        %add = add.Tensor(%zeros_like, %zeros_like_1) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %zeros_like = zeros_like(%x) f32[1,4]
        %add = add.Tensor(%zeros_like, %zeros_like) f32[1,4]
        return action=%add
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        fills = [n for n in program.graph.nodes if isinstance(filled_with(n), (int, float))]
        if len(fills) < 2:
            return PassResult(program, False)
        deps, first, same = dependencies(program), {}, {}
        for node in fills:
            val = node.meta["val"]
            alike: list[Node] = first.setdefault((tuple(val.shape), val.dtype, repr(filled_with(node))), [])
            earlier = next((n for n in alike if deps[n] <= deps[node]), None)
            if earlier is None:
                alike.append(node)
            else:
                same[node] = earlier
        if not same:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in same:
                editor.replace(node, editor.map(same[node]))
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"merged {len(same)} fills",))
