"""Which keys the mask of an attention hides, whatever the inputs are.

Owns the values of rows and columns of a mask that no input decides. Every value and every block is found once for all
the attentions that ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.work_bound import spend

_ATEN = torch.ops.aten
_CASTS = frozenset({_ATEN._to_copy.default, _ATEN.clone.default})
_ANDS = frozenset({_ATEN.logical_and.default, _ATEN.bitwise_and.Tensor})
_WHERES = frozenset({_ATEN.where.self, _ATEN.where.ScalarOther, _ATEN.where.ScalarSelf, _ATEN.where.Scalar})
_DEEPEST = 100  # ops between a mask and what is known of it; nothing is certain of what lies further behind
HIDDEN = -1e30  # a score of this or less has the probability 0 beside any other

Span = tuple[int, int]  # first, end


class KnownBlocks:
    """deps: of the program's values, as `dependencies` finds them."""

    def __init__(self, program: Program, deps: Mapping[Node, frozenset[str]]):
        self.program, self.deps = program, deps
        self._values: dict[Node, torch.Tensor | None] = {}
        self._blocks: dict[tuple[Node, Span, Span], torch.Tensor | None] = {}
        self._depth = 0

    def visible_keys(self, mask: Node | None, rows: Span, sizes: list[int]) -> list[int]:
        """Of key parts of these sizes, those that some query of `rows` may see. All, where that is not certain."""
        if mask is None:
            return list(range(len(sizes)))
        begin, seen = 0, []
        for j, size in enumerate(sizes):
            block = self.block(mask, rows, (begin, begin + size))
            hidden = block is not None and (
                not bool(block.any()) if block.dtype == torch.bool else bool((block <= HIDDEN).all()))
            if not hidden:
                seen.append(j)
            begin += size
        return seen or list(range(len(sizes)))  # a row that sees nothing at all keeps what it has

    def block(self, node: Node, rows: Span, columns: Span) -> torch.Tensor | None:
        """Rows and columns (of the last two dimensions; one of size 1 is read whole) of a value, where no input decides
        them."""
        key = node, rows, columns
        if key not in self._blocks:
            spend()
            self._depth += 1
            self._blocks[key] = self._block(*key) if self._depth <= _DEEPEST else None
            self._depth -= 1
        return self._blocks[key]

    def _block(self, node: Node, rows: Span, columns: Span) -> torch.Tensor | None:
        if not self.deps[node]:
            whole = self._value(node)
            return None if whole is None else _cut(whole, rows, columns)
        if node.op != "call_function":
            return None
        rank = node.meta["val"].dim() if isinstance(node.meta["val"], torch.Tensor) else 0
        if node.target is _ATEN.cat.default:
            return self._of_concatenation(node, rows, columns)
        if node.target is _ATEN.unsqueeze.default and node.args[1] % rank < rank - 2:
            return self.block(node.args[0], rows, columns)
        if node.target is _ATEN.slice.Tensor:
            return self._of_slice(node, rows, columns)
        if node.target is _ATEN.expand.default or node.target in _CASTS:
            block = self.block(node.args[0], rows, columns)
            if block is None or node.target is _ATEN.expand.default:
                return block
            return node.target(block, **node.kwargs)
        elementwise = (is_pointwise(node) and not is_random(node)) or node.target in _ANDS | _WHERES
        return self._of_elementwise(node, rows, columns) if elementwise else None

    def _value(self, node: Node) -> torch.Tensor | None:
        """A constant; None where it is made of a weight without content or of random numbers."""
        stack = [node]
        while stack:
            n = stack[-1]
            missing = [] if n in self._values else [i for i in n.all_input_nodes if i not in self._values]
            spend(1 + len(missing))
            if not missing:
                stack.pop()
                if n not in self._values:
                    self._values[n] = self._computed(n)
            stack += missing
        return self._values[node]

    def _computed(self, node: Node) -> torch.Tensor | None:
        if node.op == "get_attr":
            tensor = self.program.constants[node.target]
            return None if tensor.is_meta else tensor
        if is_random(node) or any(self._values[i] is None for i in node.all_input_nodes):
            return None
        with torch.no_grad():
            return node.target(*map_arg(node.args, self._values.__getitem__),
                               **map_arg(node.kwargs, self._values.__getitem__))

    def _of_concatenation(self, node: Node, rows: Span, columns: Span) -> torch.Tensor | None:
        rank = node.meta["val"].dim()
        axis, begin = (node.args[1] if len(node.args) > 1 else 0) % rank - rank, 0
        if axis < -2:
            return None
        wanted = columns if axis == -1 else rows
        for part in node.args[0]:
            end = begin + part.meta["val"].shape[axis]
            if begin <= wanted[0] and wanted[1] <= end:
                inside = (wanted[0] - begin, wanted[1] - begin)
                return self.block(part, *((rows, inside) if axis == -1 else (inside, columns)))
            begin = end
        return None  # it lies across parts

    def _of_slice(self, node: Node, rows: Span, columns: Span) -> torch.Tensor | None:
        source = node.args[0]
        rank = source.meta["val"].dim()
        axis, start, end, step = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1:])
        first, _, step = slice(start, end, step).indices(source.meta["val"].shape[axis % rank])
        if step != 1:
            return None
        axis = axis % rank - rank
        move = lambda span: (span[0] + first, span[1] + first)
        if axis == -1:
            return self.block(source, rows, move(columns))
        return self.block(source, move(rows) if axis == -2 else rows, columns)

    def _of_elementwise(self, node: Node, rows: Span, columns: Span) -> torch.Tensor | None:
        """Of an op on blocks; what is false stays so whatever it is combined with by `and`; where() may need one
        side."""
        blocks = {n: self.block(n, rows, columns) for n in node.all_input_nodes}
        if node.target in _ANDS or (
                node.target is _ATEN.mul.Tensor and node.meta["val"].dtype == torch.bool):
            false = next((b for b in blocks.values() if b is not None and not bool(b.any())), None)
            if false is not None:
                return false.to(torch.bool)
        if node.target in _WHERES:
            condition = blocks[node.args[0]]
            if condition is not None and (bool(condition.all()) or not bool(condition.any())):
                side = node.args[1] if bool(condition.all()) else node.args[2]
                block = blocks[side] if isinstance(side, Node) else torch.tensor(float(side))
                return None if block is None else block.expand(torch.broadcast_shapes(block.shape, condition.shape))
        if any(b is None for b in blocks.values()):
            return None
        with torch.no_grad():
            return node.target(*map_arg(node.args, blocks.__getitem__), **map_arg(node.kwargs, blocks.__getitem__))


def _cut(tensor: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    for axis, (begin, end) in ((-1, columns), (-2, rows)):
        if tensor.dim() >= -axis and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, begin, end - begin)
    return tensor
