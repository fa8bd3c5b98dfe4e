"""Fills take no operand for its shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult

_ATEN = torch.ops.aten
_FILLS = {_ATEN.zeros_like.default: 0, _ATEN.new_zeros.default: 0, _ATEN.ones_like.default: 1,
          _ATEN.new_ones.default: 1}
_CONTENT = {_ATEN.full_like.default: 1, _ATEN.new_full.default: 2, _ATEN.fill.Scalar: 1, _ATEN.fill.Tensor: 1,
            _ATEN.copy.default: 1}  # which argument it is


def filled_with(node: Node) -> float | Node | None:
    """What the node fills a tensor with of which its first operand gives the shape or the type, or None."""
    if node.op != "call_function":
        return None
    content = node.args[_CONTENT[node.target]] if node.target in _CONTENT else _FILLS.get(node.target)
    scalar = node.target in (_ATEN.full_like.default, _ATEN.new_full.default)
    return None if scalar and isinstance(content, Node) else content


def _overwrites(node: Node, constants: Mapping[str, torch.Tensor]) -> bool:
    """Whether the node puts numbers at constant places that are all places of its first operand, which says more than a
    number of it."""
    if node.op != "call_function" or node.target is not _ATEN.index_put.default or (
            len(node.args) > 3 and node.args[3]) or node.args[0].target is _ATEN.full.default:
        return False
    places = [i for i in node.args[1] if i is not None]
    if not all(i.op == "get_attr" for i in places):
        return False
    indices = [None if i is None else constants[i.target] for i in node.args[1]]
    if any(i is not None and i.is_meta for i in indices):
        return False
    reached = torch.zeros(node.args[0].meta["val"].shape, dtype=torch.bool)
    return bool(torch.ops.aten.index_put(reached, indices, torch.tensor(True)).all())


@dataclass(frozen=True)
class LowerFills(GraphPass):
    """zeros_like(x), and whatever else fills a tensor with a number, becomes full, which depends on no source; a tensor
    that is overwritten with another becomes that one, expanded; one that is overwritten at all its places starts as
    zeros. After loops are found: their first iteration starts from such a tensor as others do from a computed one.

    Before:
        %x = source "x" f32[1,4]
        %state = source "state" f32[1,4]
        %relu = relu(%state) f32[1,4]
        %full_like = full_like(%relu, 0.5) f32[1,4]
        %add = add.Tensor(%x, %full_like) f32[1,4]
        return action=%add
    After:
        %x = source "x" f32[1,4]
        %state = source "state" f32[1,4]
        %full = full([1, 4], 0.5, dtype=float32) f32[1,4]
        %add = add.Tensor(%x, %full) f32[1,4]
        return action=%add
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        editor, count = ProgramEditor(program), 0
        for node in program.graph.nodes:
            content = filled_with(node)
            if _overwrites(node, program.constants):
                old = node.args[0].meta["val"]
                base = editor.emit(_ATEN.full.default, (list(old.shape), 0), {"dtype": old.dtype}, like=node, val=old)
                editor.replace(node, editor.emit(node.target, (base, *editor.map_args(node.args[1:])), like=node))
                count += 1
            elif content is not None:
                editor.replace(node, _filled(editor, node, content))
                count += 1
            elif node.op != "output":
                editor.keep(node)
        return PassResult(editor.finish(), True, (f"lowered {count} fills",)) if count else PassResult(program, False)


def _filled(editor: ProgramEditor, node: Node, content: float | Node) -> Node:
    val = node.meta["val"]
    if not isinstance(content, Node):
        return editor.emit(_ATEN.full.default, (list(val.shape), content), {"dtype": val.dtype}, like=node, val=val)
    made = editor.map(content)
    if content.meta["val"].dtype != val.dtype:
        made = editor.emit(_ATEN._to_copy.default, (made,), {"dtype": val.dtype}, like=node)
    return editor.emit(_ATEN.expand.default, (made, list(val.shape)), like=node)
