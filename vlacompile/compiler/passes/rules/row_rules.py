"""Which ops act on every row of a dimension independently, and where the rows of the result are.

Owns `Parts`, a value as a concatenation of parts, and one rule per kind of op: given an op on parts along an axis, the
same op on each part. Must not know why or where ops are split.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.work_bound import spend

_ATEN = torch.ops.aten
_SAME = frozenset({_ATEN._to_copy, _ATEN.clone, _ATEN.contiguous})
_VIEWS = frozenset({_ATEN.view, _ATEN.reshape, _ATEN._unsafe_view})
# Images [N,C,...]: the rows are those of dimension 0 alone.
_IMAGES = frozenset({_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d, _ATEN.group_norm, _ATEN.max_pool2d, _ATEN.avg_pool2d,
                     _ATEN._native_batch_norm_legit_no_training, _ATEN.adaptive_avg_pool2d, _ATEN.upsample_bilinear2d,
                     _ATEN.upsample_nearest2d, _ATEN.upsample_bicubic2d, _ATEN._upsample_bilinear2d_aa,
                     _ATEN.pixel_shuffle, _ATEN.pixel_unshuffle})
_SOFTMAX = frozenset({_ATEN.softmax, _ATEN._softmax, _ATEN.log_softmax, _ATEN.cumsum})
_REDUCTIONS = frozenset({_ATEN.mean, _ATEN.sum, _ATEN.amax, _ATEN.amin})
_SPLITS = frozenset({_ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk, _ATEN.unbind})


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


@dataclass(frozen=True)
class Elements:
    """The values of an op that gives a tuple, each read from a part of its own."""

    values: tuple
    roots: frozenset[str]


Value = Node | Parts


def shape_of(value: Value) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape) if isinstance(value, Node) else value.shape


def rank_of(value: Value) -> int:
    return len(shape_of(value))


def axes_of(value: Value) -> tuple[int, ...]:
    """Axes along which there are parts, outermost first."""
    return () if isinstance(value, Node) else value.axes


def roots_of(value: Value | Elements) -> frozenset[str]:
    if isinstance(value, Elements):
        return value.roots
    return frozenset() if isinstance(value, Node) else value.all_roots


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


@dataclass(frozen=True)
class Rule:
    """operands: {value: its axis} of the values that are divided; the others are read whole. result: axis of the
    parts of the result. args: from (divided operands, size of the part) the arguments of one part."""

    operands: dict[int, int]
    result: int
    args: Callable[[dict, int], tuple]


def rule_of(op: Op, axis: int) -> Rule | None:
    """How `op` acts on parts of its first divided operand along `axis`; None where parts are mixed, or where the op is
    not known."""
    if op.target is operator.getitem:
        return Rule({0: axis}, axis, lambda at, size: (at[0], *op.args[1:]))
    packet = op.packet
    for packets, rule in _RULES:
        if packet in packets:
            return rule(op, axis)
    if packet in _SAME or (is_pointwise(op.like) and not is_random(op.like)):
        return _elementwise(op, axis)
    return None


def _first(op: Op, axis: int, result: int | None = None, rest=None) -> Rule:
    """Only the first operand is divided. rest: size -> the arguments after it, where they change."""
    after = (lambda size: op.args[1:]) if rest is None else rest
    return Rule({0: axis}, axis if result is None else result, lambda at, size: (at[0], *after(size)))


def _elementwise(op: Op, axis: int) -> Rule | None:
    """Operands are aligned at their last dimension; one of size 1 there is the same for all rows, unless it has the
    same parts."""
    tensors = {i: a for i, a in enumerate(op.args) if isinstance(a, (Node, Parts))}
    rank = max(map(rank_of, tensors.values()))
    first = next(i for i, a in tensors.items() if isinstance(a, Parts))
    axis += rank - rank_of(tensors[first])
    own = {i: axis - rank + rank_of(a) for i, a in tensors.items()}
    divided = {i: d for i, d in own.items() if i == first or (d >= 0 and (
        shape_of(tensors[i])[d] > 1 or parted_alike(tensors[i], d, tensors[first], own[first])))}
    return Rule(divided, axis, lambda at, size: tuple(at.get(i, a) for i, a in enumerate(op.args)))


def _image(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis == 0 and rank_of(op.args[0]) > 2 else None


def _linear(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - 1 and isinstance(op.args[1], Node) else None


def _layer_norm(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - len(op.args[1]) else None


def _softmax(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if op.args[1] % rank_of(op.args[0]) != axis else None


def _reduction(op: Op, axis: int) -> Rule | None:
    rank = rank_of(op.args[0])
    dims = op.args[1] if len(op.args) > 1 else None
    if not isinstance(dims, (list, tuple)) or not dims or axis in (dims := {d % rank for d in dims}):
        return None
    keep = op.args[2] if len(op.args) > 2 else op.kwargs.get("keepdim", False)
    return _first(op, axis, axis if keep else axis - sum(d < axis for d in dims))


def _matmul(op: Op, axis: int) -> Rule | None:
    a, b = op.args[:2]
    if not isinstance(a, Parts):
        return None
    rank, other = rank_of(a), rank_of(b)
    if axis == rank - 2 or (axis < rank - 2 and other <= 2):
        return _first(op, axis) if isinstance(b, Node) else None
    if axis < rank - 2 and other == rank:
        shared = shape_of(b)[axis] == 1
        return Rule({0: axis} if shared else {0: axis, 1: axis}, axis, lambda at, size: (at[0], at.get(1, b)))
    return None


def _attention(op: Op, axis: int) -> Rule | None:
    """Query, key and value [N,heads,tokens,d] (and a mask that has rows of its own) are divided together."""
    if axis >= rank_of(op.args[0]) - 2:
        return None
    divided = dict.fromkeys(range(3), axis)
    if len(op.args) > 3 and isinstance(op.args[3], (Node, Parts)):
        own = axis - rank_of(op.args[0]) + rank_of(op.args[3])
        divided |= {3: own} if own >= 0 and shape_of(op.args[3])[own] > 1 else {}
    if isinstance(op.kwargs.get("attn_mask"), Node) and math.prod(shape_of(op.kwargs["attn_mask"])[:-2]) > 1:
        return None
    return Rule(divided, axis, lambda at, size: tuple(at.get(i, a) for i, a in enumerate(op.args)))


def _permute(op: Op, axis: int) -> Rule | None:
    rank = rank_of(op.args[0])
    return _first(op, axis, [d % rank for d in op.args[1]].index(axis))


def _transpose(op: Op, axis: int) -> Rule | None:
    a, b = (d % rank_of(op.args[0]) for d in op.args[1:3])
    return _first(op, axis, {a: b, b: a}.get(axis, axis))


def _unsqueeze(op: Op, axis: int) -> Rule | None:
    return _first(op, axis, axis + (op.args[1] % (rank_of(op.args[0]) + 1) <= axis))


def _squeeze(op: Op, axis: int) -> Rule | None:
    shape = shape_of(op.args[0])
    given = op.args[1] if len(op.args) > 1 else None
    if given is None:
        return None
    dims = {d % len(shape) for d in (given if isinstance(given, (list, tuple)) else [given])}
    gone = {d for d in dims if shape[d] == 1}
    return None if axis in dims else _first(op, axis, axis - sum(d < axis for d in gone))


def _view(op: Op, axis: int) -> Rule | None:
    """A row keeps its place in memory order when the dimensions before `axis` stay as they are."""
    shape, wanted = shape_of(op.args[0]), [int(d) for d in op.args[1]]
    if -1 in wanted:
        wanted[wanted.index(-1)] = math.prod(shape) // -math.prod(wanted)
    before, row = math.prod(shape[:axis]), math.prod(shape[axis + 1:])
    sizes = [shape_of(p)[axis] for p in parts_along(op.args[0], axis) or ()]
    for result in range(len(wanted)):
        inner = math.prod(wanted[result + 1:])
        if math.prod(wanted[:result]) == before and all(s * row % inner == 0 for s in sizes):
            return _first(op, axis, result, lambda size, b=result, i=inner: (
                [*wanted[:b], size * row // i, *wanted[b + 1:]],))
    return None


def _expand(op: Op, axis: int) -> Rule | None:
    result = axis + len(op.args[1]) - rank_of(op.args[0])
    return _first(op, axis, result, lambda size: ([*op.args[1][:result], size, *op.args[1][result + 1:]], *op.args[2:]))


def picks_of(op: Op, axis: int, sizes: list[int]) -> list[int] | None:
    """The parts that `op` reads when it takes rows along `axis`: select and unbind of parts of one row."""
    if op.packet not in (_ATEN.select, _ATEN.unbind) or set(sizes) != {1}:
        return None
    dim = (op.args[1] if len(op.args) > 1 else 0) % rank_of(op.args[0])
    if dim != axis:
        return None
    return [op.args[2] % len(sizes)] if op.packet is _ATEN.select else list(range(len(sizes)))


def _slice(op: Op, axis: int) -> Rule | None:
    dim = (op.args[1] if len(op.args) > 1 else 0) % rank_of(op.args[0])
    return _first(op, axis) if dim != axis else None


def _select(op: Op, axis: int) -> Rule | None:
    dim = op.args[1] % rank_of(op.args[0])
    return _first(op, axis, axis - (dim < axis)) if dim != axis else None


def _pad(op: Op, axis: int) -> Rule | None:
    return _first(op, axis) if axis < rank_of(op.args[0]) - len(op.args[1]) // 2 else None


def _several(op: Op, axis: int) -> Rule | None:
    """Ops that give a tuple: the parts of each element."""
    at = 1 if op.packet is _ATEN.unbind else 2
    dim = (op.args[at] if len(op.args) > at else op.kwargs.get("dim", 0)) % rank_of(op.args[0])
    return _first(op, axis, axis - (at == 1 and dim < axis)) if dim != axis else None


def _join(op: Op, axis: int) -> Rule | None:
    """A concatenation along another axis than that of its operands' parts."""
    operands, stacked = op.args[0], op.packet is _ATEN.stack
    rank = rank_of(operands[0]) + stacked
    dim = (op.args[1] if len(op.args) > 1 else 0) % rank
    if not stacked and dim == axis:
        return None
    return Rule(dict.fromkeys(range(len(operands)), axis), axis + (stacked and dim <= axis),
                lambda at, size: ([at[i] for i in range(len(operands))], dim))


def _embedding(op: Op, axis: int) -> Rule | None:
    return Rule({1: axis}, axis, lambda at, size: (op.args[0], at[1], *op.args[2:]))


_RULES: tuple[tuple[frozenset, Callable[[Op, int], Rule | None]], ...] = (
    (_IMAGES, _image), (_VIEWS, _view), (_SOFTMAX, _softmax), (_REDUCTIONS, _reduction), (_SPLITS, _several),
    (frozenset({_ATEN.linear}), _linear), (frozenset({_ATEN.layer_norm, _ATEN.rms_norm}), _layer_norm),
    (frozenset({_ATEN.matmul, _ATEN.mm, _ATEN.bmm}), _matmul),
    (frozenset({_ATEN.scaled_dot_product_attention}), _attention),
    (frozenset({_ATEN.permute}), _permute), (frozenset({_ATEN.transpose}), _transpose),
    (frozenset({_ATEN.unsqueeze}), _unsqueeze), (frozenset({_ATEN.squeeze}), _squeeze),
    (frozenset({_ATEN.expand}), _expand), (frozenset({_ATEN.slice}), _slice), (frozenset({_ATEN.select}), _select),
    (frozenset({_ATEN.constant_pad_nd, _ATEN.pad}), _pad), (frozenset({_ATEN.cat, _ATEN.stack}), _join),
    (frozenset({_ATEN.embedding}), _embedding),
)
