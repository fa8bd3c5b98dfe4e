"""Linears act on tokens as they are, not on a flat list of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import GraphPass, PassResult

_ATEN = torch.ops.aten
_VIEWS = frozenset({_ATEN.view.default, _ATEN.reshape.default, _ATEN._unsafe_view.default})


@dataclass(frozen=True)
class UnflattenLinears(GraphPass):
    """linear(reshape(x)), of which the reshape numbers the rows of x through, becomes reshape(linear(x)), and a reshape
    back to the rows of x falls away: PyTorch's own attention puts the tokens of a batch between each other for its last
    Linear, behind which the images of a batch could not be told apart. Only where that reshape back is.

    Before:
        %x = source "x" f32[2,3,4]
        %w = weight "w" f32[5,4]
        %reshape = reshape(%x, [6, 4]) f32[6,4]
        %linear = linear(%reshape, %w) f32[6,5]
        %reshape_1 = reshape(%linear, [2, 3, 5]) f32[2,3,5]
        %relu = relu(%reshape_1) f32[2,3,5]
        return action=%relu
    After:
        %x = source "x" f32[2,3,4]
        %w = weight "w" f32[5,4]
        %linear = linear(%x, %w) f32[2,3,5]
        %relu = relu(%linear) f32[2,3,5]
        return action=%relu
    """

    def run(self, program: Program) -> PassResult:
        found = dict(pair for pair in map(_pair, program.graph.nodes) if pair is not None)
        if not found:
            return PassResult(program, False)
        editor, moved = ProgramEditor(program), {back.args[0] for back in found}
        for node in program.graph.nodes:
            if node in found:
                linear, rows = node.args[0], editor.map(found[node].args[0])
                shape = [*node.meta["val"].shape[:-1], found[node].meta["val"].shape[-1]]
                if list(rows.meta["val"].shape) != shape:
                    rows = editor.emit(_ATEN.reshape.default, (rows, shape), like=found[node])
                editor.replace(node, editor.emit(linear.target, (rows, *editor.map_args(linear.args[1:])), like=linear))
            elif node.op != "output" and node not in moved:
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"{len(found)} Linears on rows as they are",))


def _pair(back: Node) -> tuple[Node, Node] | None:
    """(a reshape of what a Linear gives, the reshape of what it takes), if its rows are those before the second, whose
    last dimensions may be heads."""
    if not _is_view(back) or back.args[0].target is not _ATEN.linear.default or len(back.args[0].users) != 1:
        return None
    linear = back.args[0]
    flat = linear.args[0]
    if not _is_view(flat) or any(a is flat for a in linear.args[1:]):
        return None
    rows, made = flat.args[0].meta["val"].shape, back.meta["val"].shape
    same = made[-1] == linear.meta["val"].shape[-1] and len(made) > linear.meta["val"].dim()
    return (back, flat) if same and rows[:len(made) - 1] == made[:-1] else None


def _is_view(node: Node) -> bool:
    return node.op == "call_function" and node.target in _VIEWS
