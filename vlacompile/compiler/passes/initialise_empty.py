"""Gives uninitialised tensors a content."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlacompile.compiler.graph.invariants import INITIALISED
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_FILLED = {_ATEN.empty_like.default: _ATEN.zeros_like.default, _ATEN.empty.memory_format: _ATEN.zeros.default,
           _ATEN.new_empty.default: _ATEN.new_zeros.default}


@dataclass(frozen=True)
class InitialiseEmpty(GraphPass):
    """empty becomes zeros: a value that a stage hands on must be the same in every engine, also where all of it is
    overwritten later.

    Before:
        %x = source "x" f32[1,4]
        %empty_like = empty_like(%x) f32[1,4]
        %fill = fill.Scalar(%empty_like, 1.0) f32[1,4]
        %add = add.Tensor(%x, %fill) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %zeros_like = zeros_like(%x) f32[1,4]
        %fill = fill.Scalar(%zeros_like, 1.0) f32[1,4]
        %add = add.Tensor(%x, %fill) f32[1,4]
        return action=%add
    """

    ensures = frozenset({INITIALISED})

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            if node.op == "call_function" and node.target in _FILLED:
                kwargs = {k: v for k, v in node.kwargs.items() if k != "memory_format"}
                editor.replace(node, editor.emit(_FILLED[node.target], editor.map_args(node.args), kwargs, like=node,
                                                 val=node.meta["val"]))
                count += 1
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"filled {count} tensors",)) if count else PassResult(program, False)
