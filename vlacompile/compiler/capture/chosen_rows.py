"""Rows that a mask of an input chooses (`x[mask]`, `mask.nonzero()`), while a trace becomes a program.

How many there are, the robot knows alone. Here all rows stay, beside the mask: what acts on each row alone runs over
all of them, and where rows are put back, added up or reduced, those that were not chosen are left out. So `y[m] =
f(x[m])` is a choice between y and f(x), whatever f is as long as it mixes no rows. Rows that the policy views in a
fixed shape are moved to the front: their count is what the shape says, or they are NaN, where PyTorch raises an error.

Must not know policies.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from vlacompile.compiler.capture.node_writer import NodeWriter
from vlacompile.compiler.capture.robot_numbers import RobotNumbers

_ATEN = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)
_PLACES = frozenset({_ATEN.where.default, _ATEN.nonzero_numpy.default})  # a list: one index per dimension
_ALIKE = frozenset({_ATEN.clone, _ATEN._to_copy, _ATEN.to, _ATEN.detach, _ATEN.alias, _ATEN.where, _ATEN.zeros_like,
                    _ATEN.ones_like, _ATEN.full_like, _ATEN.empty_like, _ATEN.contiguous, _ATEN.masked_fill})
_SIZED = frozenset({_ATEN.view, _ATEN.reshape, _ATEN._unsafe_view})
_MOVED = frozenset({_ATEN.unsqueeze, _ATEN.permute, _ATEN.transpose, _ATEN.t})  # their operands say all of it
_ALONG = frozenset({_ATEN.softmax, _ATEN._softmax, _ATEN.log_softmax, _ATEN._log_softmax, _ATEN.cumsum, _ATEN.select,
                    _ATEN.slice, _ATEN.squeeze, _ATEN.flip, _ATEN.sort, _ATEN.topk, _ATEN.argsort, _ATEN.glu,
                    _ATEN.index_select, _ATEN.gather, _ATEN.split, _ATEN.chunk})
_REDUCTIONS = frozenset({_ATEN.sum, _ATEN.mean, _ATEN.amax, _ATEN.amin, _ATEN.any, _ATEN.all, _ATEN.prod, _ATEN.max,
                         _ATEN.min, _ATEN.argmax, _ATEN.argmin, _ATEN.linalg_vector_norm, _ATEN.logsumexp,
                         _ATEN.std, _ATEN.var})
# What a row that was not chosen counts as, where rows are reduced.
_NEUTRAL: dict[object, Callable[[torch.dtype], object]] = {
    _ATEN.sum: lambda _: 0, _ATEN.prod: lambda _: 1, _ATEN.any: lambda _: False, _ATEN.all: lambda _: True,
    _ATEN.amax: lambda t: _end(t, -1), _ATEN.max: lambda t: _end(t, -1),
    _ATEN.amin: lambda t: _end(t, 1), _ATEN.min: lambda t: _end(t, 1)}


class RowsMixed(Exception):
    """An op needs to know which rows were chosen."""


@dataclass(frozen=True)
class Rows:
    """A value of the trace of which the robot knows how many rows it has. dense: all rows, of the program. dim: which
    dimension they are. mask: bool[N], of the program. shape: of the mask as it was written. axis: of that shape, for
    the index of rows along it that `nonzero` gives."""

    dense: Node
    dim: int
    mask: Node
    shape: tuple[int, ...]
    axis: int | None = None


class ChosenRows:
    """Follows one trace. graph, constants: of the program. numbers: of the same trace. rows: {value of the trace: its
    rows}."""

    def __init__(self, graph: Graph, constants: dict[str, torch.Tensor], numbers: RobotNumbers):
        self._write, self.numbers = NodeWriter(graph, constants, "chosen_rows"), numbers
        self._emit, self._constant = self._write.emit, self._write.constant
        self.rows: dict[Node, Rows | list[Rows]] = {}
        self._masks: dict[Node, Node] = {}

    def follow(self, node: Node, operand: Callable[[Node], object]):
        """What stands for `node` in the program, if it has chosen rows or reads some; else NotImplemented. operand:
        traced node -> its copy. Raises RowsMixed."""
        self._write.like = node
        if node.target is operator.getitem and isinstance(self.rows.get(node.args[0]), list):
            found = self.rows[node.args[0]][node.args[1]]
        elif (found := self._begun(node, operand)) is None:
            read = [i for i in node.all_input_nodes if i in self.rows]
            if not read:
                return NotImplemented
            if node.target is _ATEN.sym_size.int and node.args[1] == self.rows[read[0]].dim:
                self.numbers.of[node] = self._count(self.rows[read[0]])
                return self.numbers.of[node]
            if node.target is _ATEN.sym_size.int:
                return NotImplemented
            found = self._read(node, [self.rows[i] for i in read], operand)
        if isinstance(found, Node):
            return found
        self.rows[node] = found
        return found[0].dense if isinstance(found, list) else found.dense

    def _count(self, rows: Rows) -> Node:
        """How many were chosen."""
        return self._emit(_ATEN.sum.default, self._emit(_ATEN._to_copy.default, rows.mask, dtype=torch.int64))

    # where rows are chosen

    def _begun(self, node: Node, operand) -> Rows | list[Rows] | None:
        op = node.target
        if op is _ATEN.masked_select.default:
            shape = list(torch.broadcast_shapes(*(a.meta["val"].shape for a in node.args)))
            value, mask = (self._emit(_ATEN.expand.default, operand(a), shape) for a in node.args)
            return self._rows(self._emit(_ATEN.reshape.default, value, [-1]), 0, mask)
        if op in _PLACES or op is _ATEN.nonzero.default:
            if node.args[0] in self.rows:
                raise RowsMixed
            value = operand(node.args[0])
            shape = tuple(value.meta["val"].shape)
            if not shape:
                raise RowsMixed
            whole = torch.ones(shape, dtype=torch.bool).nonzero()
            if op is _ATEN.nonzero.default:
                axis = 0 if len(shape) == 1 else None
                return replace(self._rows(self._constant(whole), 0, value), axis=axis)
            return [replace(self._rows(self._constant(part), 0, value), axis=i)
                    for i, part in enumerate(whole.unbind(1))]
        if op is not _ATEN.index.Tensor or (at := _place_of_mask(node.args[1])) is None or any(
                i in self.rows for i in node.all_input_nodes):
            return None
        value, mask = operand(node.args[0]), operand(node.args[1][at])
        shape = list(value.meta["val"].shape)
        shape[at:at + mask.meta["val"].dim()] = [mask.meta["val"].numel()]
        return self._rows(self._emit(_ATEN.reshape.default, value, shape), at, mask)

    def _rows(self, dense: Node, dim: int, mask: Node) -> Rows:
        shape = tuple(mask.meta["val"].shape)
        if mask not in self._masks:
            flat = mask if mask.meta["val"].dtype is torch.bool else self._emit(_ATEN.ne.Scalar, mask, 0)
            self._masks[mask] = self._emit(_ATEN.reshape.default, flat, [-1])
        return Rows(dense, dim, next(m for m in self._masks.values() if _same(m, self._masks[mask])), shape)

    # what reads them

    def _read(self, node: Node, read: list, operand) -> Rows | Node | list[Rows]:
        first, val = read[0], node.meta["val"]
        if any(isinstance(r, list) or r.mask is not first.mask for r in read):
            raise RowsMixed
        if not any(map(_dim_of, val if isinstance(val, (list, tuple)) else [val])):
            return self._left(node, first, operand)
        where = _dim_of(val[0] if isinstance(val, (list, tuple)) else val) - 1
        packet = node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else None
        if packet in _SIZED:
            shape = self._shape(val, where, first)
            old = first.dense.meta["val"].shape
            if (math.prod(shape[:where]), math.prod(shape[where + 1:])) != (
                    math.prod(old[:first.dim]), math.prod(old[first.dim + 1:])):
                raise RowsMixed
            return replace(first, dense=self._emit(_ATEN.reshape.default, first.dense, shape), dim=where)
        if packet is _ATEN.expand:
            return Rows(self._emit(node.target, first.dense, self._shape(val, where, first)), where, first.mask,
                        first.shape)
        if not self._row_by_row(node, packet, where):
            raise RowsMixed
        new = self._copied(node, operand)
        keeps = first.axis if packet in _ALIKE or packet in _MOVED or packet in (_ATEN.select, _ATEN.squeeze) else None
        rows = Rows(new, where, first.mask, first.shape, keeps)
        return [replace(rows, dense=self._emit(operator.getitem, new, i)) for i in range(len(val))] \
            if isinstance(val, (list, tuple)) else rows

    def _row_by_row(self, node: Node, packet, where: int) -> bool:
        """Whether every row of the result is computed of that row of the operands, and of what has no rows."""
        one = self.rows.get(node.args[0]) if isinstance(node.args[0], Node) else None
        if any(i in self.numbers.of for i in node.all_input_nodes):
            return torch.Tag.pointwise in getattr(node.target, "tags", ()) and self._by_elements(node, where)
        if packet in _ALIKE or torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self._by_elements(node, where)
        if packet in _MOVED:
            return True
        if packet is _ATEN.index:
            return node.args[0] not in self.rows
        if packet is _ATEN.embedding:
            return node.args[0] not in self.rows
        if packet is _ATEN.cat:
            rank, dim = node.meta["val"].dim(), node.args[1] if len(node.args) > 1 else 0
            return all(i in self.rows and self.rows[i].dim == where for i in node.args[0]) and dim % rank != where
        if one is None or any(i in self.rows for i in node.all_input_nodes if i is not node.args[0]):
            return False
        rank = one.dense.meta["val"].dim()
        if packet is _ATEN.linear:
            return one.dim < rank - 1
        if packet in (_ATEN.mm, _ATEN.matmul):
            return one.dim == rank - 2 and node.args[1].meta["val"].dim() <= 2
        if packet is _ATEN.layer_norm:
            return one.dim < rank - len(node.args[1])
        if packet in _ALONG or packet in _REDUCTIONS:
            dims = _dims_of(node, rank)
            return bool(dims) and one.dim not in dims
        return False

    def _by_elements(self, node: Node, where: int) -> bool:
        behind = node.meta["val"].dim() - where
        return all(_size(self._val(i), behind) == 1 if i not in self.rows else
                   self._val(i).dim() - self.rows[i].dim == behind for i in node.all_input_nodes)

    def _copied(self, node: Node, operand) -> Node:
        """The op on all rows. Indices of rows that were not chosen read some row that exists."""
        indices = node.args[1] if node.target.overloadpacket in (_ATEN.index, _ATEN.embedding) else ()
        safe = {i: self._safe(self.rows[i]) for i in (indices if isinstance(indices, (list, tuple)) else [indices])
                if i in self.rows}
        of = lambda n: safe.get(n) or (self.rows[n].dense if n in self.rows else operand(n))
        if any(i in self.numbers.of for i in node.all_input_nodes):
            new = self._emit(self.numbers.target(node), *map_arg(node.args, of), **node.kwargs)
            return new if new.meta["val"].dtype == node.meta["val"].dtype else self._emit(
                _ATEN._to_copy.default, new, dtype=node.meta["val"].dtype)
        return self._emit(node.target, *map_arg(node.args, of),
                          **{k: map_arg(v, of) for k, v in node.kwargs.items()
                             if k not in ("memory_format", "layout", "pin_memory")})

    def _safe(self, index: Rows) -> Node:
        return index.dense if index.dense.op == "get_attr" else self._filled(index, 0)

    def _filled(self, rows: Rows, number) -> Node:
        """All rows, those that were not chosen of that number."""
        val = rows.dense.meta["val"]
        mask = self._emit(_ATEN.reshape.default, rows.mask, [-1] + [1] * (val.dim() - rows.dim - 1))
        other = self._constant(torch.full((), number, dtype=val.dtype))
        return self._emit(_ATEN.where.self, mask, rows.dense, other)

    # where they are rows no longer

    def _left(self, node: Node, first: Rows, operand) -> Node:
        op, packet = node.target, getattr(node.target, "overloadpacket", None)
        if packet is _ATEN.index_put:
            return self._put(node, operand)
        if op is _ATEN.index_add.default or op is _ATEN.scatter_add.default:
            into, dim, index, source = node.args
            rows = self.rows.get(source)
            if into in self.rows or index not in self.rows or rows is None or (
                    op is _ATEN.scatter_add.default and rows.dim != self.rows[index].dim):
                raise RowsMixed
            return self._emit(op, operand(into), dim, self._safe(self.rows[index]), self._filled(rows, 0),
                              **node.kwargs)
        if node.args[0] not in self.rows:
            raise RowsMixed
        rank = first.dense.meta["val"].dim()
        if packet in _NEUTRAL and isinstance(node.meta["val"], torch.Tensor):
            return self._emit(op, self._filled(first, _NEUTRAL[packet](first.dense.meta["val"].dtype)), *node.args[1:],
                              **node.kwargs)
        if packet is _ATEN.mean and not node.kwargs.get("dtype"):
            total = self._filled(first, 0)
            others = math.prod(first.dense.meta["val"].shape[d] for d in _dims_of(node, rank) or range(rank)
                               if d != first.dim)
            total = self._emit(_ATEN.sum.dim_IntList, total, *node.args[1:]) if node.args[1:] else self._emit(
                _ATEN.sum.default, total)
            count = self._emit(_ATEN.sum.default, self._emit(_ATEN._to_copy.default, first.mask,
                                                             dtype=total.meta["val"].dtype))
            return self._emit(_ATEN.div.Tensor, total, self._emit(_ATEN.mul.Tensor, count, others))
        if packet in _SIZED:
            return self._to_the_front(node, first)
        raise RowsMixed

    def _put(self, node: Node, operand) -> Node:
        """`into[mask] = rows`: a choice, if the rows are of that mask."""
        into, indices, source = node.args[:3]
        adds = len(node.args) > 3 and node.args[3]
        at, rows = _place_of_mask(indices), self.rows.get(source)
        if into in self.rows or rows is None:
            raise RowsMixed
        value = operand(into)
        if at is not None:
            shape, mask = tuple(indices[at].meta["val"].shape), self._rows(value, 0, operand(indices[at])).mask
        elif indices and all(i in self.rows for i in indices):
            at, shape, mask = 0, rows.shape, self.rows[indices[0]].mask
            if adds:
                return self._emit(node.target, value, [self._safe(self.rows[i]) for i in indices],
                                  self._filled(rows, 0), True)
            if [self.rows[i].axis for i in indices] != list(range(len(shape))) or shape != tuple(
                    value.meta["val"].shape[:len(shape)]):
                raise RowsMixed
        else:
            raise RowsMixed
        if mask is not rows.mask:
            raise RowsMixed
        whole, n = list(value.meta["val"].shape), mask.meta["val"].numel()
        new = self._emit(_ATEN.expand.default, rows.dense, [*whole[:at], n, *whole[at + len(shape):]])
        new = self._emit(_ATEN.reshape.default, new, whole)
        new = self._emit(_ATEN.add.Tensor, value, new) if adds else new
        chosen = self._emit(_ATEN.reshape.default, mask, [*shape, *[1] * (len(whole) - at - len(shape))])
        return self._emit(_ATEN.where.self, chosen, new, value)

    def _to_the_front(self, node: Node, rows: Rows) -> Node:
        """Chosen rows in their order, as many as the shape in which they are viewed has."""
        val = rows.dense.meta["val"]
        each = math.prod(d for i, d in enumerate(val.shape) if i != rows.dim)
        shape = list(node.meta["val"].shape)
        if not each or math.prod(shape) % each or not math.prod(shape) or not val.dtype.is_floating_point:
            raise RowsMixed
        count, n = math.prod(shape) // each, val.shape[rows.dim]
        ones = self._emit(_ATEN._to_copy.default, rows.mask, dtype=torch.int64)
        before = self._emit(_ATEN.cumsum.default, ones, 0)
        wanted = self._constant(torch.arange(count)[:, None])
        # the k-th chosen row has as many rows before it as those up to which no more than k are chosen
        places = self._emit(_ATEN.sum.dim_IntList, self._emit(
            _ATEN._to_copy.default, self._emit(_ATEN.le.Tensor, before, wanted), dtype=torch.int64), [1])
        places = self._emit(_ATEN.clamp.default, places, 0, n - 1)
        found = self._emit(_ATEN.index_select.default, rows.dense, rows.dim, places)
        right = self._emit(_ATEN.eq.Scalar, self._emit(_ATEN.sum.default, ones), count)
        found = self._emit(_ATEN.where.self, right, found, self._constant(torch.full((), math.nan, dtype=val.dtype)))
        return self._emit(_ATEN.reshape.default, found, shape)

    def _val(self, node: Node) -> torch.Tensor:
        return self.rows[node].dense.meta["val"] if node in self.rows else node.meta["val"]

    @staticmethod
    def _shape(val: torch.Tensor, where: int, rows: Rows) -> list[int]:
        return [rows.mask.meta["val"].numel() if i == where else d for i, d in enumerate(val.shape)]


def _place_of_mask(indices) -> int | None:
    """Which dimension the only index begins at, if it is a mask."""
    given = [(i, n) for i, n in enumerate(indices) if n is not None]
    return given[0][0] if len(given) == 1 and given[0][1].meta["val"].dtype in _MASKS else None


def _dim_of(val) -> int:
    """1 + the only dimension whose size is not known; 0 if all are. Raises RowsMixed if there are several."""
    shape = val.shape if isinstance(val, torch.Tensor) else ()
    unknown = [i for i, d in enumerate(shape) if isinstance(d, torch.SymInt)]
    if len(unknown) > 1:
        raise RowsMixed
    return unknown[0] + 1 if unknown else 0


def _dims_of(node: Node, rank: int) -> set[int]:
    """The dimensions that the op acts along; empty: all, or not known."""
    names = [a.name for a in node.target._schema.arguments]
    for name in ("dim", "dims"):
        if name in names:
            at = names.index(name)
            default = node.target._schema.arguments[at].default_value
            given = node.args[at] if len(node.args) > at else node.kwargs.get(name, default)
            given = [given] if isinstance(given, int) else given
            return {d % rank for d in given or ()}
    return set()


def _size(val, behind: int) -> int:
    """Size of the dimension that far from the end; 1 if there is none."""
    return val.shape[-behind] if isinstance(val, torch.Tensor) and val.dim() >= behind else 1


def _end(dtype: torch.dtype, sign: int):
    if dtype is torch.bool:
        return sign > 0
    if dtype.is_floating_point:
        return sign * math.inf
    return torch.iinfo(dtype).max if sign > 0 else torch.iinfo(dtype).min


def _same(one, other, depth: int = 12) -> bool:
    """Whether two nodes compute the same: the same ops on the same values."""
    if one is other:
        return True
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(
            _same(a, b, depth) for a, b in zip(one, other, strict=True))
    if not isinstance(one, Node) or not isinstance(other, Node):
        return type(one) is type(other) and one == other
    return depth > 0 and one.op == other.op == "call_function" and one.target == other.target and (
        one.kwargs == other.kwargs and _same(one.args, other.args, depth - 1))
