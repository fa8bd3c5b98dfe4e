"""All iterations of a loop in one engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from vlacompile.compiler.graph.invariants import LOOPS_UNROLLED
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import FUSED, RolledLoop
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class UnrollLoop(GraphPass):
    """A loop becomes its iterations one after the other, over the same weights: one launch instead of K, and an engine
    K times as long.

    Before:
        %noise = source "noise" f32[1,4]
        %observation = source "observation" f32[1,4]
        %loop = loop([%noise], [], [%observation]) (f32[1,4])
        %getitem = getitem(%loop, 0) f32[1,4]
        return action=%getitem
    After:
        %noise = source "noise" f32[1,4]
        %observation = source "observation" f32[1,4]
        %tanh = tanh(%noise) f32[1,4]
        %mul = mul.Tensor(%tanh, %observation) f32[1,4]
        %tanh_1 = tanh(%mul) f32[1,4]
        %mul_1 = mul.Tensor(%tanh_1, %observation) f32[1,4]
        return action=%mul_1
    """

    ensures = frozenset({LOOPS_UNROLLED})
    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        editor, notes, results = ProgramEditor(program), [], {}
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if isinstance(node.target, RolledLoop):
                results[node] = _inlined(editor, node)
                notes.append(f"{node.name}: {node.target.iterations} iterations in one engine")
            elif node.op == "call_function" and node.args and node.args[0] in results:
                editor.replace(node, results[node.args[0]][node.args[1]])
            else:
                editor.keep(node)
        return PassResult(editor.finish(), True, tuple(notes)) if notes else PassResult(program, False)


def _inlined(editor: ProgramEditor, node: Node) -> tuple[Node, ...]:
    """The carried values after the last iteration."""
    loop: RolledLoop = node.target
    how = replace(loop.how(), form="fused")
    carried, tables, invariants = ([editor.map(n) for n in operands] for operands in node.args)
    for k in range(loop.iterations):
        rows = [editor.emit(_ATEN.select.int, (t, 0, k)) for t in tables]
        stands = dict(zip(loop.placeholders(), (*carried, *rows, *invariants), strict=True))
        for inner in loop.body.nodes:
            if inner.op == "call_function":
                stands[inner] = editor.graph.node_copy(inner, stands.__getitem__)
        carried = [stands[n] for n in loop.next_values()]
    for n in carried:
        n.meta = {**n.meta, FUSED: how}
    return tuple(carried)
