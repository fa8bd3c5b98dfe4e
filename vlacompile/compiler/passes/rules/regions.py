"""Which parts of its operands a part of a value is made of, and what that part depends on."""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.graph.delay import HISTORY, is_delay
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.work_bound import spend

_ATEN = torch.ops.aten
Region = tuple[tuple[int, int], ...]  # per dimension its first index and the one behind its last
CONCATENATIONS = 4  # that a part is followed through: of a tensor that is written row by row, each row is one
# Pointwise without the tag that says so.
_ELEMENTWISE = frozenset({_ATEN._to_copy.default, _ATEN.expand.default, _ATEN.where.Scalar, _ATEN.where.ScalarSelf,
                          _ATEN.where.ScalarOther})


def whole_of(node: Node) -> Region:
    return tuple((0, int(size)) for size in node.meta["val"].shape)


class Regions:
    """What parts of values depend on."""

    def __init__(self, program: Program):
        self.of = dependencies(program)
        self._looped = frozenset(n for n, s in program.sources.items() if s.update == "step")
        self._known: dict[tuple[Node, Region, int], frozenset[str]] = {}

    def refined(self) -> dict[Node, frozenset[str]]:
        """What every value depends on, where a slice depends on its own part alone."""
        plain, self.of = self.of, {}
        for node in plain:
            spend(1 + len(node.all_input_nodes))
            self.of[node] = plain[node] if not node.all_input_nodes else frozenset().union(
                *(self.of[i] for i in node.all_input_nodes))
            if is_delay(node):
                self.of[node] |= {HISTORY}
            elif node.target is _ATEN.slice.Tensor and self.of[node]:
                self.of[node] = self.sources(node, whole_of(node))
        return self.of

    def depend_on_less(self, node: Node) -> bool:
        """Of what a loop changes all counts as one: its first iteration begins with a source, and stays like the
        others."""
        if operands_of(node, whole_of(node)) is None:
            return False
        whole, part = self.of[node], self.sources(node, whole_of(node))
        return part < whole and (part & self._looped or part) != (whole & self._looped or whole)

    def sources(self, node: Node, region: Region, through: int = CONCATENATIONS) -> frozenset[str]:
        """through: how many concatenations one behind the other it is followed through; beyond, all of a value
        counts."""
        left = through - (node.target is _ATEN.cat.default)
        if not self.of[node] or left < 0:
            return self.of[node]
        key = node, region, left
        if key not in self._known:
            spend()
            operands = operands_of(node, region)
            self._known[key] = self.of[node] if operands is None else frozenset().union(
                *(self.sources(*operand, left) for operand in operands))
        return self._known[key]


def operands_of(node: Node, region: Region) -> list[tuple[Node, Region]] | None:
    """The parts of the operands that a part of the result is made of, in their order; None: not known."""
    if node.op != "call_function" or is_random(node) or not isinstance(node.meta["val"], torch.Tensor):
        return None
    if is_pointwise(node) or node.target in _ELEMENTWISE:
        return [(o, _broadcast(o, region)) for o in node.all_input_nodes]
    first = node.args[0] if node.args else None
    if node.target is _ATEN.cat.default:
        return [(part, own) for part, own in _joined(node, region) if own is not None]
    if not isinstance(first, Node) or len(node.all_input_nodes) != 1:
        return None
    own = _REGIONS[node.target](node, region) if node.target in _REGIONS else None
    return None if own is None else [(first, own)]


def _broadcast(operand: Node, region: Region) -> Region:
    shape = operand.meta["val"].shape
    own = region[len(region) - len(shape):]
    return tuple((0, 1) if size == 1 else part for size, part in zip(shape, own, strict=True))


def _axis(node: Node, rank: int, position: int = 1) -> int:
    return (node.args[position] if len(node.args) > position else 0) % rank


def _joined(node: Node, region: Region) -> list[tuple[Node, Region | None]]:
    axis, begin = _axis(node, len(region)), 0
    found: list[tuple[Node, Region | None]] = []
    for part in node.args[0]:
        size = part.meta["val"].shape[axis] if part.meta["val"].dim() == len(region) else 0
        low, high = (min(max(edge - begin, 0), size) for edge in region[axis])
        found.append((part, (*region[:axis], (low, high), *region[axis + 1:]) if high > low else None))
        begin += size
    return found


def _unsqueezed(node: Node, region: Region) -> Region:
    axis = _axis(node, len(region))
    return region[:axis] + region[axis + 1:]


def _sliced(node: Node, region: Region) -> Region | None:
    axis, size = _axis(node, len(region)), node.args[0].meta["val"].shape[_axis(node, len(region))]
    begin, _, step = slice(*(*node.args[2:], *(None, None, 1)[len(node.args) - 2:])).indices(size)
    if step != 1:
        return None
    return (*region[:axis], (begin + region[axis][0], begin + region[axis][1]), *region[axis + 1:])


def _summed(node: Node, region: Region) -> Region | None:
    return region if region and region[_axis(node, len(region))][0] == 0 else None


def _selected(node: Node, region: Region) -> Region:
    axis = node.args[1] % (len(region) + 1)
    index = node.args[2] % node.args[0].meta["val"].shape[axis]
    return (*region[:axis], (index, index + 1), *region[axis:])


def _transposed(node: Node, region: Region) -> Region:
    one, two = (a % len(region) for a in node.args[1:3])
    order = list(range(len(region)))
    order[one], order[two] = two, one
    return tuple(region[a] for a in order)


def _permuted(node: Node, region: Region) -> Region:
    order = [a % len(region) for a in node.args[1]]
    return tuple(region[order.index(a)] for a in range(len(region)))


_REGIONS = {_ATEN.unsqueeze.default: _unsqueezed, _ATEN.slice.Tensor: _sliced, _ATEN.select.int: _selected,
            _ATEN.cumsum.default: _summed, _ATEN.transpose.int: _transposed, _ATEN.permute.default: _permuted}
