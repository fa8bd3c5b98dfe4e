"""Puts numbers behind tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_COMMUTE = frozenset({_ATEN.mul.Tensor, _ATEN.multiply.Tensor, _ATEN.add.Tensor})
_KEEP_ORDER = frozenset({_ATEN.floor_divide.default})


def _number_first(node: Node) -> bool:
    """Whether a number stands before the tensor; `add` with a factor of its second operand does not commute."""
    return (node.op == "call_function" and node.target in _COMMUTE | _KEEP_ORDER and not node.kwargs
            and not isinstance(node.args[0], Node) and isinstance(node.args[1], Node))


@dataclass(frozen=True)
class OrderOperands(GraphPass):
    """mul(number, x), as `torch.mul(0.5, x)` is traced, becomes mul(x, number), which every emitter knows. Where the
    order matters, the number becomes a tensor.

    Before:
        %x = source "x" f32[1,4]
        %mul = mul.Tensor(0.5, %x) f32[1,4]
        return action=%mul
    After:
        %x = source "x" f32[1,4]
        %mul = mul.Tensor(%x, 0.5) f32[1,4]
        return action=%mul
    """

    def run(self, program: Program) -> PassResult:
        found = {n for n in program.graph.nodes if _number_first(n)}
        if not found:
            return PassResult(program, False)
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node in found:
                number, tensor = node.args[0], editor.map(node.args[1])
                if node.target in _KEEP_ORDER:
                    number = editor.emit(_ATEN.full.default, ([], number), {"dtype": torch.tensor(number).dtype},
                                         like=node)
                    operands = (number, tensor)
                else:
                    operands = (tensor, number)
                editor.replace(node, editor.emit(node.target, operands, like=node))
            elif node.op != "output":
                editor.copy(node)
        return PassResult(editor.finish(), True, (f"ordered the operands of {len(found)} ops",))
