"""Where all rows of a constant are the same one: an embedding that is repeated for every image of a batch.

Must not know what the rows are needed for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.passes.rules.parts import Op, Parts, values_in
from vlacompile.compiler.passes.rules.row_rules import LISTED, rule_of

_ATEN = torch.ops.aten
_REPEATS = frozenset({_ATEN.expand.default, _ATEN.repeat.default})
_READS = frozenset({_ATEN.slice.Tensor, _ATEN.index_select.default})
_FILLS = frozenset({_ATEN.full.default, _ATEN.zeros.default, _ATEN.ones.default})
_VIEWS = frozenset({_ATEN.view, _ATEN.reshape, _ATEN._unsafe_view})
_MOST_ELEMENTS = 1 << 20  # of a constant that is looked at


class EqualRows:
    """{value of a program that depends on no source: the dimensions along which all its rows are equal}. It follows
    from the ops, not from what a weight holds: a program without its weights is divided as with them."""

    def __init__(self, program: Program, deps: Mapping[Node, frozenset[str]]):
        self._program = program
        # {value: {axis: after how many rows they are repeated}}: heads are rows of a batch for a while
        self._axes: dict[Node, dict[int, int]] = {}
        for node in program.graph.nodes:
            spend()
            if node.op in ("get_attr", "call_function") and not deps[node] and isinstance(
                    node.meta["val"], torch.Tensor):
                self._axes[node] = self._constant(node) if node.op == "get_attr" else self._computed(node)

    def along(self, node: Node, axis: int, sizes: Sequence[int]) -> bool:
        """Whether it is known that parts of these sizes are the same rows, as far as they go; one row is."""
        period = self._period(node, axis)
        return period is not None and all(size % period == 0 for size in sizes)

    def _period(self, node: Node, axis: int) -> int | None:
        return 1 if node.meta["val"].shape[axis] == 1 else self._axes.get(node, {}).get(axis)

    def _constant(self, node: Node) -> dict[int, int]:
        value = self._program.constants[node.target]
        if node.target in self._program.parameters or value.is_meta or not 0 < value.numel() <= _MOST_ELEMENTS:
            return {}
        return {d: 1 for d in range(value.dim()) if _rows_have_equal_bits(value, d)}

    def _computed(self, node: Node) -> dict[int, int]:
        rank = node.meta["val"].dim()
        if node.target in _FILLS:
            return dict.fromkeys(range(rank), 1)
        if is_random(node):
            return {}
        found: dict[int, int] = {}
        for operand in dict.fromkeys(node.all_input_nodes):
            for axis in self._axes.get(operand, ()):
                result = self._result(node, operand, axis)
                if result is not None:
                    found[result[0]] = min(result[1], found.get(result[0], result[1]))
        if node.target in _REPEATS:
            shape = node.args[0].meta["val"].shape
            new = rank - len(shape)
            found |= dict.fromkeys((d for d in range(rank) if d < new or shape[d - new] == 1), 1)
        return found

    def _result(self, node: Node, operand: Node, axis: int) -> tuple[int, int] | None:
        """(axis, period) of the result, where rows of an operand are repeated: an op on each row alone gives the same
        of each."""
        period = self._axes[operand][axis]
        if node.target in _READS and node.args[0] is operand and node.args[1] % operand.meta["val"].dim() == axis:
            return (axis, 1) if period == 1 else None
        rows = Parts(axis, (operand,), frozenset())

        def divided(arg):
            if isinstance(arg, (list, tuple)):
                return type(arg)(map(divided, arg))
            return rows if arg is operand else arg

        op = Op(node.target, tuple(map(divided, node.args)), dict(node.kwargs), node)
        if operand not in node.all_input_nodes or not any(isinstance(v, Parts) for v in values_in(op.args)):
            return None
        if op.packet in _VIEWS:
            result = _viewed(operand, node, axis)
            return None if result is None else _grouped(result, period, operand.meta["val"].shape[axis], node)
        rule = rule_of(op, axis)
        if rule is None:
            return None
        operands = node.args[LISTED[op.packet]] if op.packet in LISTED else node.args
        if any(self._period(operands[i], d) not in (1, period) for i, d in rule.operands.items()):
            return None
        same = node.meta["val"].shape[rule.result] == operand.meta["val"].shape[axis]
        return (rule.result, period) if same else None


def _viewed(operand: Node, node: Node, axis: int) -> int | None:
    """The dimension of a reshape's result that begins where `axis` does."""
    shape, made = operand.meta["val"].shape, node.meta["val"].shape
    before = math.prod(shape[:axis])
    return next((d for d in range(len(made)) if made[d] > 1 and math.prod(made[:d]) == before), None)


def _grouped(axis: int, period: int, size: int, node: Node) -> tuple[int, int] | None:
    """(axis, period) where `size` rows became those of the result's axis: several, or a part of one."""
    made = node.meta["val"].shape[axis]
    if made >= size:
        return (axis, period * (made // size)) if made % size == 0 else None
    each = size // made
    if size % made or (period % each and each % period):
        return None
    return axis, max(1, period // each)


def _rows_have_equal_bits(value: torch.Tensor, axis: int) -> bool:
    """-0.0 and 0.0 are not equal."""
    rows = value.movedim(axis, 0).flatten().view(torch.uint8).reshape(value.shape[axis], -1)
    return bool((rows == rows[:1]).all())
