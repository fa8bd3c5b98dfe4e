"""A mask that is known, and hides nothing or everything, is not read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.known_values import KnownValues

_ATEN = torch.ops.aten
_SDPA = _ATEN.scaled_dot_product_attention.default
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default})
_WHERES = frozenset({_ATEN.where.self, _ATEN.where.ScalarOther, _ATEN.where.ScalarSelf})
_FILLS = frozenset({_ATEN.masked_fill.Scalar, _ATEN.masked_fill.Tensor})


@dataclass(frozen=True)
class DropOpenMasks(GraphPass):
    """A constant mask that hides no key leaves scaled_dot_product_attention, and so do zeros that are added to scores
    that only a softmax reads, and a where() or masked_fill() whose constant condition never chooses one of the sides.

    Exact: a zero that is added changes at most the sign of a zero, which no exponential tells apart. A board's log has
    masks made of constants alone as part of 6 ms of a replan.

    Before:
        %q = source "q" f32[1,2,4,8]
        %mask = weight "mask" bool[4,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%q, %q, %q, %mask) f32[1,2,4,8]
        return action=%scaled_dot_product_attention
    After:
        %q = source "q" f32[1,2,4,8]
        %scaled_dot_product_attention = scaled_dot_product_attention(%q, %q, %q) f32[1,2,4,8]
        return action=%scaled_dot_product_attention
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        known, editor, count = KnownValues(program), ProgramEditor(program), 0
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            if node.target is _SDPA and _hides_nothing(known, _mask_of(node)):
                rest = {k: v for k, v in node.kwargs.items() if k != "attn_mask"}
                args = [*node.args[:3], *([None, *node.args[4:]] if len(node.args) > 4 else [])]
                editor.replace(node, editor.emit(_SDPA, tuple(map(editor.map_args, args)), editor.map_args(rest),
                                                 like=node))
            elif (kept := _other(known, node)) is not None:
                editor.replace(node, editor.map(kept))
            elif (number := _filled(known, node)) is not None:
                val = node.meta["val"]
                editor.replace(node, editor.emit(_ATEN.full.default, (list(val.shape), number), {"dtype": val.dtype},
                                                 like=node))
            else:
                editor.keep(node)
                continue
            count += 1
        if not count:
            return PassResult(program, False)
        return PassResult(editor.finish(), True, (f"{count} masks hide nothing, or everything, and are not read",))


def _mask_of(node: Node) -> Node | None:
    return node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")


def _hides_nothing(known: KnownValues, mask: Node | None) -> bool:
    content = None if mask is None else known(mask)
    if content is None:
        return False
    return bool(content.all()) if content.dtype is torch.bool else not bool(content.any())


def _other(known: KnownValues, node: Node) -> Node | None:
    """The operand that a node is equal to, where a constant mask hides nothing of it."""
    if node.op != "call_function":
        return None
    kept = None
    if node.target is _ATEN.add.Tensor and not node.kwargs and all(isinstance(n, Node) for n in node.args):
        scores = bool(node.users) and all(u.target in _SOFTMAX for u in node.users)
        zeros = [n for n in node.args if scores and n.meta["val"].is_floating_point() and _hides_nothing(known, n)]
        kept = next((n for n in node.args if zeros and n is not zeros[0]), None)
    else:
        kept = _chosen(known, node)
    same = isinstance(kept, Node) and kept.meta["val"].shape == node.meta["val"].shape and \
        kept.meta["val"].dtype == node.meta["val"].dtype
    return kept if same else None


def _filled(known: KnownValues, node: Node) -> bool | int | float | None:
    """The number that all elements are, where a constant mask hides everything else."""
    number = _chosen(known, node)
    if isinstance(number, Node):
        content = known(number)
        return content.item() if content is not None and content.numel() == 1 else None
    return number


def _chosen(known: KnownValues, node: Node) -> Node | bool | int | float | None:
    """The side that a constant condition always chooses."""
    if node.target in _WHERES:
        condition, where, elsewhere = node.args
    elif node.target in _FILLS:
        elsewhere, condition, where = node.args
    else:
        return None
    shown = known(condition)
    return None if shown is None else where if bool(shown.all()) else elsewhere if not bool(shown.any()) else None
