"""Later rows of a loop's tables, when only its first iterations were traced.

Two consecutive rows may differ only in the index at which a tensor is read (`schedule[k]`, `table[n + k:n + k + 1]`) or
in the numbers that are counted (`arange(n + k, n + k + 1)`). Everything else in the expressions that compute them must
be equal; then row k is the same expression with the index k.
"""

from __future__ import annotations

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import ProgramEditor

_ATEN = torch.ops.aten
# {op: where its arguments begin and end stand}
_RANGES = {_ATEN.slice.Tensor: 2, _ATEN.arange.start: 0, _ATEN.arange.start_step: 0}


class CannotExtrapolate(Exception):
    """Says why later rows do not follow from the traced ones."""


class Extrapolator:
    """Emits the rows that follow two consecutive ones."""

    def __init__(self, editor: ProgramEditor):
        self.editor = editor
        self.done: dict[tuple, object] = {}

    def row(self, a, b, ahead: int):
        """The row `ahead` iterations after `b`, where `a` is the row before `b`; a new node or a number."""
        if a is b or (not isinstance(a, Node) and repr(a) == repr(b)):
            return map_arg(b, self.editor.map)
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
            return type(b)(self.row(x, y, ahead) for x, y in zip(a, b, strict=True))
        if not isinstance(a, Node) or not isinstance(b, Node):
            raise CannotExtrapolate(f"{a} and {b} are numbers; read them from a tensor by the index, as schedule[k]")
        key = (a, b, ahead)
        if key not in self.done:
            self.done[key] = self._node(a, b, ahead)
        return self.done[key]

    def _node(self, a: Node, b: Node, ahead: int) -> Node:
        if a.op != "call_function" or b.op != "call_function" or a.target is not b.target or len(a.args) != len(b.args):
            raise CannotExtrapolate(f"{a.name} and {b.name} are computed differently")
        if a.target is _ATEN.select.int and a.args[:2] == b.args[:2] and b.args[2] == a.args[2] + 1:
            tensor, axis, index = b.args
            rows = tensor.meta["val"].shape[axis]
            if index + ahead >= rows:
                raise CannotExtrapolate(f"{tensor.name} has {rows} rows, and row {index + ahead} is needed")
            return self.editor.emit(b.target, (self.editor.map(tensor), axis, index + ahead), like=b)
        moved = _moved(a, b, ahead)
        if moved is not None:
            return self.editor.emit(b.target, self.editor.map_args(moved), dict(b.kwargs), like=b)
        if a.kwargs != b.kwargs:
            raise CannotExtrapolate(f"{a.name} and {b.name} have different options")
        args = tuple(self.row(x, y, ahead) for x, y in zip(a.args, b.args, strict=True))
        return self.editor.emit(b.target, args, dict(b.kwargs), like=b)


def _moved(a: Node, b: Node, ahead: int) -> tuple | None:
    """The arguments of an op that reads or counts from one number to another, both of which move on by the same every
    time. Raises CannotExtrapolate where that leads outside of what is read."""
    first = _RANGES.get(b.target)
    if first is None or a.kwargs != b.kwargs or len(b.args) < first + 2:
        return None
    begin, end, *rest = b.args[first:]
    step = begin - a.args[first] if isinstance(begin, int) and isinstance(a.args[first], int) else 0
    same = (*a.args[:first], *a.args[first + 2:]) == (*b.args[:first], *rest)
    if not same or not step or not isinstance(end, int) or end - a.args[first + 1] != step:
        return None
    begin, end = begin + step * ahead, end + step * ahead
    if b.target is _ATEN.slice.Tensor:
        size = b.args[0].meta["val"].shape[b.args[1]]
        if not 0 <= begin < end <= size:
            raise CannotExtrapolate(f"{b.args[0].name} has {size} rows, and rows {begin} to {end} are needed")
    return (*b.args[:first], begin, end, *rest)
