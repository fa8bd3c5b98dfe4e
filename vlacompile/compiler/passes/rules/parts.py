"""A value as a concatenation of parts, and an op on such values.

Must not know which ops act on parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import Node

from vlacompile.compiler.graph.work_bound import spend


@dataclass(frozen=True, eq=False)
class Parts:
    """A value that is the concatenation of `parts` along `axis`; a part is a node or Parts again.
    roots: names of the concatenations that it comes from. A part may be a node that gives a tuple: each element is
    then a concatenation. Parts are shared between values, so that what is asked of one is found out once."""

    axis: int
    parts: tuple
    roots: frozenset[str]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        spend(len(self.parts))
        shapes = [shape_of(p) for p in self.parts]
        first = shapes[0]
        if len(first) <= self.axis:  # one row that was picked: a number
            return first
        return *first[: self.axis], sum(s[self.axis] for s in shapes), *first[self.axis + 1:]

    @cached_property
    def axes(self) -> tuple[int, ...]:
        spend(len(self.parts))
        return tuple(dict.fromkeys([self.axis, *(a for p in self.parts for a in axes_of(p))]))

    @cached_property
    def all_roots(self) -> frozenset[str]:
        spend(len(self.parts))
        return self.roots.union(*map(roots_of, self.parts))

    @cached_property
    def _along(self) -> dict[int, list[Value] | None]:
        return {self.axis: list(self.parts)}

    def along(self, axis: int) -> list[Value] | None:
        """As of `parts_along`."""
        if axis not in self._along:
            self._along[axis] = self._columns(axis)
        return self._along[axis]

    def _columns(self, axis: int) -> list[Value] | None:
        spend(len(self.parts))
        rows = [parts_along(p, axis) for p in self.parts]
        if any(r is None for r in rows) or len({tuple(shape_of(p)[axis] for p in r) for r in rows}) != 1:
            return None
        return [Parts(self.axis, column, self.roots) for column in zip(*rows, strict=True)]


Value = Node | Parts


def shape_of(value: Value) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape) if isinstance(value, Node) else value.shape


def rank_of(value: Value) -> int:
    return len(shape_of(value))


def axes_of(value: Value) -> tuple[int, ...]:
    """Axes along which there are parts, outermost first."""
    return () if isinstance(value, Node) else value.axes


def roots_of(value: Value) -> frozenset[str]:
    return frozenset() if isinstance(value, Node) else value.all_roots


def nodes_of(value: Value) -> Iterator[Node]:
    """The nodes that a value consists of."""
    if isinstance(value, Node):
        yield value
    else:
        for part in value.parts:
            yield from nodes_of(part)


def with_roots(value: Value, roots: frozenset[str]) -> Parts:
    """`value`, known to come from these concatenations; a node becomes the one part of itself."""
    if isinstance(value, Node):
        return Parts(0, (value,), roots)
    return Parts(value.axis, value.parts, value.roots | roots)


def joined(axis: int, parts: tuple, roots: frozenset[str]) -> Parts:
    """A value as these parts. The one part of one part is that part itself: one more op on a value of one row does not
    make it deeper."""
    only = parts[0]
    if len(parts) == 1 and isinstance(only, Parts) and len(only.parts) == 1:
        return Parts(axis, only.parts, roots | only.roots)
    return Parts(axis, parts, roots)


def parts_along(value: Value, axis: int) -> list[Value] | None:
    """The parts along `axis`, also where that is not the outermost axis; None where there are none."""
    return None if isinstance(value, Node) else value.along(axis)


def parted_alike(value: Value, axis: int, other: Value, other_axis: int) -> bool:
    """Whether two values have parts of the same sizes along these axes."""
    one, two = parts_along(value, axis), parts_along(other, other_axis)
    return one is not None and two is not None and [shape_of(p)[axis] for p in one] == [
        shape_of(p)[other_axis] for p in two]


@dataclass(frozen=True)
class Op:
    """One op on values. args, kwargs: as of a node, with values in the place of nodes. like: the node it is a part
    of."""

    target: object
    args: tuple
    kwargs: dict
    like: Node

    @property
    def packet(self):
        return self.target.overloadpacket if isinstance(self.target, torch._ops.OpOverload) else self.target


def values_in(args) -> list[Value]:
    if isinstance(args, (Node, Parts)):
        return [args]
    return [v for a in args for v in values_in(a)] if isinstance(args, (list, tuple)) else []
