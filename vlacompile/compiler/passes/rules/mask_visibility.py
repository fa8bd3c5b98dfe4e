"""Where a mask, or scores that one was applied to, leave a key visible: the boolean behind -inf.

Follows how masks are written, so that the answer does not depend on a precision that holds no infinity.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.ops import is_view
from vlacompile.compiler.graph.program import Program, ProgramEditor

_ATEN = torch.ops.aten
_MINUS_INFINITY = float("-inf")
_WHERES = frozenset({_ATEN.where.self, _ATEN.where.ScalarOther, _ATEN.where.ScalarSelf, _ATEN.where.Scalar})
_FILLS = frozenset({_ATEN.masked_fill.Scalar, _ATEN.masked_fill.Tensor})
_SUMS = frozenset({_ATEN.add.Tensor, _ATEN.sub.Tensor})
_KEEPS = frozenset({_ATEN._to_copy.default, _ATEN.clone.default, _ATEN.mul.Scalar, _ATEN.div.Scalar,
                    _ATEN.alias.default})
_SCALES = frozenset({_ATEN.mul.Tensor, _ATEN.div.Tensor})
_NOTS = frozenset({_ATEN.logical_not.default, _ATEN.bitwise_not.default})
_ORS = frozenset({_ATEN.logical_or.default, _ATEN.bitwise_or.Tensor})
_SMALL = 1 << 24  # elements of a constant that is looked at


class Visible:
    """of(node): what is not -inf in the values of a node of `program`, as a node of the edited one; None: all of it, or
    as much as can be said."""

    def __init__(self, program: Program, editor: ProgramEditor):
        self.program, self.editor = program, editor
        self.found: dict[Node, Node | None] = {}
        self.known: dict[Node, torch.Tensor | None] = {}
        self.reached: set[Node] = set()  # by a source
        for n in program.graph.nodes:
            if n.op == "placeholder" or any(i in self.reached for i in n.all_input_nodes):
                self.reached.add(n)

    def of(self, node: Node) -> Node | None:
        if node not in self.found:
            self.found[node] = self._of(node)
        return self.found[node]

    def may_be_empty(self, node: Node) -> bool:
        """Whether some inputs may leave a row with nothing visible."""
        known = self._constant(node)
        if known is not None:
            seen = known if known.dtype is torch.bool else known != _MINUS_INFINITY
            return not bool(seen.any(-1).all())
        if node.target is _ATEN.cat.default:
            axis = (node.args[1] if len(node.args) > 1 else 0) % node.meta["val"].dim() - node.meta["val"].dim()
            parts = [self.may_be_empty(n) for n in node.args[0]]
            return all(parts) if axis == -1 else any(parts)
        if node.target in _ORS:
            one, other = node.args
            if other.target in _NOTS and other.args[0].target is _ATEN.any.dim and other.args[0].args[:2] == (one, -1):
                return False  # what guard_empty_rows writes
            return all(self.may_be_empty(n) for n in node.args)
        if node.target in _WHERES and self._sides(node) == (False, True):
            return self.may_be_empty(node.args[0])
        hidden = node.target in _FILLS and node.args[1].target in _NOTS and self._hides(node.args[2])
        if hidden and self.of(node.args[0]) is None:
            return self.may_be_empty(node.args[1].args[0])
        if node.target in _KEEPS or node.target in (_ATEN.unsqueeze.default, _ATEN.expand.default):
            first = node.args[0]
            same = first.meta["val"].dim() > 0 and first.meta["val"].shape[-1:] == node.meta["val"].shape[-1:]
            return self.may_be_empty(first) if same else True
        if node.target in _SUMS and len(node.all_input_nodes) == 2:
            masked = [n for n in node.args if self.of(n) is not None]
            return self.may_be_empty(masked[0]) if len(masked) == 1 else True
        return True

    def _of(self, node: Node) -> Node | None:
        if node.meta["val"].dtype is torch.bool:
            return self.editor.map(node)
        if not node.meta["val"].is_floating_point():
            return None
        known = self._constant(node)
        if known is not None:
            return self._ne(node) if bool((known == _MINUS_INFINITY).any()) else None
        if node.op != "call_function":  # the runtime refuses a source that holds an infinity
            return None
        if node.target in _WHERES:
            return self._of_where(node)
        if node.target in _FILLS:
            return self._of_fill(node)
        if node.target in _SUMS:
            return self._both(node, [n for n in node.args if isinstance(n, Node)])
        if node.target in _SCALES:
            scaled = [n for n in node.args if isinstance(n, Node) and n.meta["val"].dim()]
            return self.of(scaled[0]) if len(scaled) == 1 else None
        if node.target in _KEEPS:  # a condition that becomes a number hides nothing: it is 0 or 1
            return None if node.args[0].meta["val"].dtype is torch.bool else self.of(node.args[0])
        if node.target is _ATEN.log.default:
            return self.editor.emit(_ATEN.ne.Scalar, (self.editor.map(node.args[0]), 0), like=node)
        if node.target is _ATEN.cat.default:
            return self._of_parts(node)
        if is_view(node) and len(node.all_input_nodes) == 1:
            return self._moved(node)
        return None

    def _of_where(self, node: Node) -> Node | None:
        condition, one, other = (*node.args, None, None)[:3]
        first, second = self._sides(node)
        if first == second:
            return self._ne(node) if first else self._both(node, [n for n in (one, other) if isinstance(n, Node)])
        side = one if second else other
        shown = self.editor.map(condition)
        if first:
            shown = self.editor.emit(_ATEN.logical_not.default, (shown,), like=node)
        inner = self.of(side) if isinstance(side, Node) else None
        return shown if inner is None else self.editor.emit(_ATEN.logical_and.default, (shown, inner), like=node)

    def _sides(self, node: Node) -> tuple[bool, bool]:
        """Whether each side of a where() is -inf and nothing else."""
        return self._hides(node.args[1]), self._hides(node.args[2])

    def _hides(self, side) -> bool:
        if isinstance(side, Node):
            known = self._constant(side)
            return known is not None and known.is_floating_point() and bool((known == _MINUS_INFINITY).all())
        return side == _MINUS_INFINITY

    def _of_fill(self, node: Node) -> Node | None:
        value, where, number = node.args
        inner = self.of(value)
        if not self._hides(number):
            return inner if inner is None else self.editor.emit(
                _ATEN.logical_or.default, (inner, self.editor.map(where)), like=node)
        shown = self.editor.emit(_ATEN.logical_not.default, (self.editor.map(where),), like=node)
        return shown if inner is None else self.editor.emit(_ATEN.logical_and.default, (shown, inner), like=node)

    def _both(self, node: Node, operands: list[Node]) -> Node | None:
        seen = [v for v in (self.of(n) for n in operands) if v is not None]
        if len(seen) < 2:
            return seen[0] if seen else None
        return self.editor.emit(_ATEN.logical_and.default, tuple(seen[:2]), like=node)

    def _of_parts(self, node: Node) -> Node | None:
        seen = [self.of(n) for n in node.args[0]]
        if all(v is None for v in seen):
            return None
        full = lambda n: self.editor.emit(
            _ATEN.full.default, ([*n.meta["val"].shape], True), {"dtype": torch.bool}, like=node)
        parts = [full(n) if v is None else self._as_wide(v, n, node) for v, n in zip(seen, node.args[0], strict=True)]
        return self.editor.emit(_ATEN.cat.default, (parts, *node.args[1:]), like=node)

    def _moved(self, node: Node) -> Node | None:
        seen = self.of(node.args[0])
        if seen is None:
            return None
        seen = self._as_wide(seen, node.args[0], node)
        return self.editor.emit(node.target, (seen, *node.args[1:]), dict(node.kwargs), like=node)

    def _as_wide(self, seen: Node, of: Node, like: Node) -> Node:
        shape = list(of.meta["val"].shape)
        if list(seen.meta["val"].shape) == shape:
            return seen
        return self.editor.emit(_ATEN.expand.default, (seen, shape), like=like)

    def _ne(self, node: Node) -> Node:
        return self.editor.emit(_ATEN.ne.Scalar, (self.editor.map(node), _MINUS_INFINITY), like=node)

    def _constant(self, node: Node) -> torch.Tensor | None:
        """What a node is where no source reaches it and it is small enough to look at."""
        if node not in self.known:
            self.known[node] = None
            if node in self.reached or node.meta["val"].numel() > _SMALL:
                return None
            held = node.op == "get_attr"
            value = self.program.constants[node.target] if held else fold(self.program, frozenset({node}))[node]
            self.known[node] = None if value.is_meta else value
        return self.known[node]
