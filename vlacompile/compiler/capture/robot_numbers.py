"""Python's numbers that are known on the robot alone, while a trace becomes a program: places that a tensor without
dimensions says (`x[best]`), counts of rows that a mask chose. Each becomes a tensor without dimensions: what computes
with it computes with that, and what is at such a place is chosen among all.

A place that is none (PyTorch raises an error) gives NaN; where numbers are whole, no row has it, and the engine refuses
it as any index that is out of range.

Must not know policies.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.capture.node_writer import NodeWriter

_ATEN = torch.ops.aten
_FLOOR = {"rounding_mode": "floor"}
_ARITHMETIC: dict[object, tuple[object, dict]] = {
    operator.add: (_ATEN.add.Tensor, {}), operator.sub: (_ATEN.sub.Tensor, {}), operator.mul: (_ATEN.mul.Tensor, {}),
    operator.truediv: (_ATEN.div.Tensor, {}), operator.floordiv: (_ATEN.div.Tensor_mode, _FLOOR),
    operator.mod: (_ATEN.remainder.Tensor, {}), operator.neg: (_ATEN.neg.default, {}),
    torch.sym_max: (_ATEN.maximum.default, {}), torch.sym_min: (_ATEN.minimum.default, {})}
_OF_TENSORS = {"Scalar": "Tensor", "Tensor_Scalar": "Tensor_Tensor", "ScalarSelf": "self", "ScalarOther": "self"}
_CHOSEN = frozenset({_ATEN.max.dim, _ATEN.min.dim, _ATEN.topk.default, _ATEN.sort.default, _ATEN.median.dim})
_SAME_NUMBERS = frozenset({_ATEN.view.default, _ATEN.reshape.default, _ATEN.squeeze.default, _ATEN.squeeze.dim,
                           _ATEN.select.int, _ATEN.slice.Tensor, _ATEN.unsqueeze.default, _ATEN.clone.default,
                           _ATEN.flatten.using_ints})


class UnknownNumber(Exception):
    """An op needs to know a number that the robot alone knows."""


def is_number(val) -> bool:
    return isinstance(val, (torch.SymInt, torch.SymFloat))


def idle_nodes(graph: Graph) -> set[Node]:
    """What computes numbers that nothing but assertions reads."""
    idle: set[Node] = set()
    for node in reversed(graph.nodes):
        val = node.meta.get("val")
        if node.op == "call_function" and all(u in idle for u in node.users) and (
                val is None or isinstance(val, (torch.SymInt, torch.SymFloat, torch.SymBool))):
            idle.add(node)
    return idle


class RobotNumbers:
    """Follows one trace. graph, constants: of the program. of: {number of the trace: tensor of the program}."""

    def __init__(self, graph: Graph, constants: dict[str, torch.Tensor]):
        self._write, self.of = NodeWriter(graph, constants, "robot_numbers"), {}
        self._emit, self._constant = self._write.emit, self._write.constant

    def follow(self, node: Node, operand: Callable[[Node], object]):
        """What stands for `node` in the program, if it is such a number or reads one; else NotImplemented. operand:
        traced node -> its copy. Raises UnknownNumber."""
        self._write.like = node
        if node.target is _ATEN.item.default and is_number(node.meta["val"]):
            self.of[node] = self._emit(_ATEN.reshape.default, operand(node.args[0]), [])
            return self.of[node]
        if not any(i in self.of for i in node.all_input_nodes):
            return NotImplemented
        if is_number(node.meta.get("val")):
            return self.computed(node)
        if node.target is _ATEN.select.int and node.args[0] not in self.of:
            return self._selected(node, operand)
        if node.target is _ATEN.select_scatter.default and not {*node.args[:2]} & self.of.keys():
            return self._written(node, operand)
        if node.target in (_ATEN.full.default, _ATEN.scalar_tensor.default) and node.all_input_nodes == [node.args[-1]]:
            value = self._emit(_ATEN._to_copy.default, self.of[node.args[-1]], dtype=node.meta["val"].dtype)
            return self._emit(_ATEN.expand.default, value, list(node.meta["val"].shape))
        if torch.Tag.pointwise in getattr(node.target, "tags", ()) or node.target in (
                _ATEN.where.ScalarSelf, _ATEN.where.ScalarOther):
            return self.pointwise(node, operand)
        raise UnknownNumber

    def computed(self, node: Node) -> Node:
        """A number that is computed of numbers."""
        if node.target in (torch.sym_float, torch.sym_int):
            dtype = torch.float32 if node.target is torch.sym_float else torch.int64
            self.of[node] = self._emit(_ATEN._to_copy.default, self.of[node.args[0]], dtype=dtype)
            return self.of[node]
        if node.target not in _ARITHMETIC or node.kwargs:
            raise UnknownNumber
        target, kwargs = _ARITHMETIC[node.target]
        self.of[node] = self._emit(target, *(self.of[a] if isinstance(a, Node) else self._constant(torch.tensor(a))
                                             for a in node.args), **kwargs)
        return self.of[node]

    def pointwise(self, node: Node, operand: Callable[[Node], object]) -> Node:
        """An op on the elements of tensors and on numbers."""
        target = self.target(node)
        new = self._emit(target, *map_arg(node.args, lambda n: self.of[n] if n in self.of else operand(n)),
                         **map_arg(node.kwargs, operand))
        old = node.meta["val"]
        if tuple(new.meta["val"].shape) != tuple(old.shape):
            raise UnknownNumber
        return new if new.meta["val"].dtype == old.dtype else self._emit(_ATEN._to_copy.default, new, dtype=old.dtype)

    def target(self, node: Node):
        """The same op of tensors, where numbers stand as operands."""
        op = node.target
        if any(v in self.of for v in node.kwargs.values() if isinstance(v, Node)):
            raise UnknownNumber
        found = getattr(op.overloadpacket, _OF_TENSORS.get(op._overloadname, op._overloadname), None)
        kinds = {i: str(a.type) for i, a in enumerate(found._schema.arguments)} if found else {}
        if any(kinds.get(i) != "Tensor" for i, a in enumerate(node.args) if isinstance(a, Node) and a in self.of):
            raise UnknownNumber
        return found

    # what is at a place

    def _selected(self, node: Node, operand) -> Node:
        value, dim = operand(node.args[0]), node.args[1]
        shape = value.meta["val"].shape
        place, right = self._place(node.args[2], shape[dim], value.meta["val"].dtype)
        found = self._emit(_ATEN.index_select.default, value, dim, self._emit(_ATEN.reshape.default, place, [1]))
        found = self._emit(_ATEN.squeeze.dim, found, dim)
        return self._or_nan(found, right)

    def _written(self, node: Node, operand) -> Node:
        value, source, dim = operand(node.args[0]), operand(node.args[1]), node.args[2]
        shape = value.meta["val"].shape
        place, right = self._place(node.args[3], shape[dim], value.meta["val"].dtype)
        rows = self._constant(torch.arange(shape[dim]))
        if right is not True and not value.meta["val"].dtype.is_floating_point:  # the read refuses what is no row
            place = self._emit(_ATEN.index_select.default, rows, 0, self._emit(_ATEN.reshape.default, place, [1]))
        here = self._emit(_ATEN.eq.Tensor, rows, place)
        here = self._emit(_ATEN.reshape.default, here, [-1] + [1] * (len(shape) - dim % len(shape) - 1))
        source = self._emit(_ATEN.unsqueeze.default, source, dim)
        return self._or_nan(self._emit(_ATEN.where.self, here, source, value), right)

    def _place(self, number: Node, rows: int, dtype: torch.dtype) -> tuple[Node, Node | bool | None]:
        """(the place counted from the front, whether it is one: True, on the robot, or None where the read says it)"""
        place = self.of[number]
        low, high = _range(number)
        if low >= 0 and high < rows:
            return place, True
        back = self._emit(_ATEN.add.Tensor, place, self._constant(torch.tensor(rows)))
        place = self._emit(_ATEN.where.self, self._emit(_ATEN.lt.Scalar, place, 0), back, place)
        if -rows <= low and high < rows:
            return place, True
        right = self._emit(_ATEN.bitwise_and.Tensor, self._emit(_ATEN.ge.Scalar, place, 0),
                           self._emit(_ATEN.lt.Scalar, place, rows))
        if dtype.is_floating_point:
            return self._emit(_ATEN.clamp.default, place, 0, rows - 1), right
        # a negative one that is none would be counted from the back again
        return self._emit(_ATEN.where.self, right, place, self._constant(torch.tensor(rows))), None

    def _or_nan(self, found: Node, right: Node | bool | None) -> Node:
        if not isinstance(right, Node):
            return found
        nan = self._constant(torch.full((), math.nan, dtype=found.meta["val"].dtype))
        return self._emit(_ATEN.where.self, right, found, nan)


def _range(number: Node, depth: int = 8) -> tuple[float, float]:
    """Between which numbers the values of a traced node lie, as far as ops say it that choose among so many."""
    unknown = -math.inf, math.inf
    if not isinstance(number, Node) or number.op != "call_function" or not depth:
        return (number, number) if isinstance(number, int) else unknown
    op, args = number.target, number.args
    if op is _ATEN.item.default or op in _SAME_NUMBERS:
        return _range(args[0], depth - 1)
    if op in (_ATEN.argmax.default, _ATEN.argmin.default):
        shape = args[0].meta["val"].shape
        return 0, (math.prod(shape) if len(args) < 2 or args[1] is None else shape[args[1]] if shape else 1) - 1
    if op is operator.getitem and args[1] == 1 and args[0].target in _CHOSEN:
        val = args[0].args[0].meta["val"]
        return 0, max(val.shape, default=1) - 1
    if op in (_ATEN.floor_divide.default, _ATEN.remainder.Scalar, _ATEN.floor_divide.Scalar, operator.floordiv,
              operator.mod, _ATEN.div.Tensor_mode) and isinstance(args[1], int) and args[1] > 0:
        low, high = _range(args[0], depth - 1)
        if op in (_ATEN.remainder.Scalar, operator.mod):
            return 0, args[1] - 1
        if math.isfinite(low) and math.isfinite(high) and number.kwargs.get("rounding_mode", "floor") == "floor":
            return low // args[1], high // args[1]
    return unknown
