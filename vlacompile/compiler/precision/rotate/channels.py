"""Which elements of a value form the vectors that are rotated, and how operations that move elements take them along.

A value is rotated when, at every position of its other dimensions, its channels are made of one or several vectors of
`size` numbers, each multiplied by the same orthogonal matrix. Channels may be part of the features, spread over several
dimensions, or in any order: moves of elements are followed element by element. Must not know matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch.fx import Node
from torch.fx.node import map_arg

_ATEN = torch.ops.aten

MOVES = frozenset({
    _ATEN.view, _ATEN.reshape, _ATEN._unsafe_view, _ATEN.flatten, _ATEN.unflatten, _ATEN.permute, _ATEN.transpose,
    _ATEN.t, _ATEN.slice, _ATEN.select, _ATEN.narrow, _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.expand, _ATEN.repeat,
    _ATEN.repeat_interleave, _ATEN.clone, _ATEN.contiguous, _ATEN.alias, _ATEN.detach, _ATEN.cat, _ATEN.stack,
    _ATEN.movedim, _ATEN.flip, _ATEN.roll, _ATEN.unbind, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk})
JOINS = frozenset({_ATEN.cat, _ATEN.stack})


@dataclass(frozen=True)
class Channels:
    """place: int64, as many dimensions as the value, of size 1 where it does not matter: which number of its vector an
    element is, -1: none, it is not rotated. vector: int64, like place: elements with the same number are one vector.
    size: numbers per vector. gain, shift: f64[size]: the value is (x R) * gain + shift in the place of what it was,
    (x * gain + shift): its readers multiply and add first; None: 1 and 0."""

    place: torch.Tensor
    vector: torch.Tensor
    size: int
    gain: torch.Tensor | None = field(default=None)
    shift: torch.Tensor | None = field(default=None)

    @property
    def axes(self) -> tuple[int, ...]:
        """The dimensions, from the end (negative), over which vectors lie."""
        return tuple(d - self.place.dim() for d, n in enumerate(self.place.shape) if n > 1)

    @property
    def last(self) -> bool:
        """Whether vectors lie over the last dimension alone."""
        return self.axes == (-1,)

    @property
    def pure(self) -> bool:
        return self.gain is None and self.shift is None

    def same(self, other: Channels) -> bool:
        """Up to leading dimensions."""
        if self.size != other.size or not all(_equal(a, b) for a, b in ((self.gain, other.gain),
                                                                        (self.shift, other.shift))):
            return False
        a, b = (_trimmed(c) for c in (self, other))
        return a[0].shape == b[0].shape and torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])

    def columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(place, vector) along the last dimension. Only if `last`."""
        return self.place.flatten(), self.vector.flatten()

    def indices(self) -> torch.Tensor:
        """int64[vectors, size]: where along the last dimension the numbers of each vector are."""
        place, vector = self.columns()
        found = [(vector == v).nonzero().flatten() for v in vector[place >= 0].unique().tolist()]
        return torch.stack([i[place[i].argsort()] for i in found])

    def aligned(self, dims: int) -> Channels:
        """Of a value with that many dimensions that broadcasts to or from this one."""
        shape = (1,) * max(0, dims - self.place.dim()) + tuple(self.place.shape[max(0, self.place.dim() - dims):])
        return Channels(self.place.reshape(shape), self.vector.reshape(shape), self.size, self.gain, self.shift)


def over_last(features: int, size: int) -> Channels:
    """Of a value [...,features]: vectors of `size` numbers, one behind the other."""
    i = torch.arange(features)
    return Channels(i % size, i // size * size, size)


def shape_of(node: Node) -> tuple[int, ...]:
    return tuple(int(d) for d in node.meta["val"].shape)


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _trimmed(c: Channels) -> tuple[torch.Tensor, torch.Tensor]:
    lead = next((d for d, n in enumerate(c.place.shape) if n > 1), c.place.dim())
    shape = c.place.shape[lead:]
    return c.place.reshape(shape), c.vector.reshape(shape)


# Whole values: place and vector of every element

Whole = tuple[torch.Tensor, torch.Tensor]  # int64, shaped like the value; vectors have numbers of their own


def whole(channels: Channels, shape: tuple[int, ...]) -> Whole:
    c = channels.aligned(len(shape))
    place, vector = c.place.expand(shape), c.vector.expand(shape)
    counts = [1 if n > 1 else d for n, d in zip(c.place.shape, shape, strict=True)]
    row = torch.arange(math.prod(counts)).reshape(counts).expand(shape)
    return place, torch.where(place < 0, -1, row * c.place.numel() + vector)


def channels_of(value: Whole, size: int, axes: tuple[int, ...] | None = None) -> Channels | None:
    """The channels of a value whose every element is known; None: it is not made of whole vectors that lie alike
    everywhere. axes: dimensions over which vectors lie; over the others, elements that are unknown (-1) are taken to be
    like their neighbours. None: whichever dimensions it takes, and nothing is unknown."""
    place, vector = value
    dims = place.dim()
    fill = axes is not None
    axes = tuple(a % dims for a in axes) if fill else tuple(
        d for d in range(dims) if bool((place != place.narrow(d, 0, 1)).any()))
    rest = tuple(d for d in range(dims) if d not in axes)
    rows = [t.permute(*rest, *axes).reshape(math.prod(t.shape[d] for d in rest), -1) for t in (place, vector)]
    known = rows[0] >= 0
    if not fill and bool((known != known[:1]).any()):
        return None
    first = rows[0].amax(0)
    if not bool(((rows[0] == first) | ~known).all()):
        return None
    leader = _leaders(first, rows[1].gather(0, known.int().argmax(0)[None])[0], known.int().argmax(0), size)
    if leader is None:
        return None
    taken = first >= 0
    at = torch.where(taken, leader, torch.arange(len(first)))
    if bool((known != known[:, at]).any()) or not bool((rows[1] == rows[1][:, at])[known].all()):
        return None
    shape = tuple(place.shape[d] if d in axes else 1 for d in range(dims))
    return Channels(first.reshape(shape), torch.where(taken, leader, -1).reshape(shape), size)


def _leaders(place: torch.Tensor, vector: torch.Tensor, row: torch.Tensor, size: int) -> torch.Tensor | None:
    """Per channel the one that is number 0 of its vector; copies of a vector are taken in order. None: a vector is not
    complete."""
    found: dict[tuple[int, int, int], list[int]] = {}
    seen: dict[tuple[int, int, int], int] = {}
    for c, (p, v, r) in enumerate(zip(place.tolist(), vector.tolist(), row.tolist(), strict=True)):
        if p >= 0:
            copy = seen[r, v, p] = seen.get((r, v, p), 0) + 1
            found.setdefault((r, v, copy), []).append(c)
    leader = torch.full_like(place, -1)
    for members in found.values():
        if sorted(place[members].tolist()) != list(range(size)):
            return None
        leader[members] = members[int(place[members].argmin())]
    return leader


# Moves

def moves(node: Node) -> bool:
    """Whether each element of the result (or results) is an element of an argument, and all are f32."""
    return getattr(node.target, "overloadpacket", None) in MOVES and all(
        n.meta["val"].dtype == torch.float32 for n in tensors(node))


def tensors(node: Node) -> list[Node]:
    """Tensor arguments, as often as they occur."""
    found: list[Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def sources_of(node: Node):
    """Of a move: for every element of the result, or per result, its index among the elements of all tensor arguments
    behind each other."""
    start = 0

    def numbered(n: Node) -> torch.Tensor:
        nonlocal start
        count = math.prod(shape_of(n))
        start += count
        return torch.arange(start - count, start).reshape(shape_of(n))

    return node.target(*map_arg(node.args, numbered), **map_arg(node.kwargs, numbered))


def moved_up(node: Node, indices: torch.Tensor, value: Whole) -> list[Whole]:
    """What each tensor argument must be, for a result that is `value`; -1 where nothing is read."""
    shapes = [shape_of(n) for n in tensors(node)]
    sizes = [math.prod(s) for s in shapes]
    place = torch.full((sum(sizes),), -1)
    place[indices.flatten()] = value[0].flatten()
    none = torch.iinfo(torch.int64).max
    vector = torch.full((sum(sizes),), none).scatter_reduce(0, indices.flatten(), value[1].flatten(), "amin")
    vector[vector == none] = -1
    return [(p.reshape(s), v.reshape(s)) for p, v, s in zip(place.split(sizes), vector.split(sizes), shapes,
                                                            strict=True)]


def moved_down(node: Node, indices: torch.Tensor, given: list[Channels | None]) -> Channels | None:
    """Of a result (of its `indices`), where each tensor argument is what `given` says; None: unknown arguments. The
    result of a join is taken to be alike along the dimension that it joins; it is for the caller to require that."""
    wholes, start, size = [], 0, next(c.size for c in given if c is not None)
    for n, c in zip(tensors(node), given, strict=True):
        shape = shape_of(n)
        place, vector = whole(c, shape) if c is not None else (torch.full(shape, -1), torch.full(shape, -1))
        wholes.append((place.flatten(), torch.where(vector < 0, -1, vector + start).flatten()))
        start += math.prod(shape) * (1 if c is None else c.place.numel())
    place, vector = (torch.cat([w[i] for w in wholes])[indices] for i in (0, 1))
    if node.target.overloadpacket not in JOINS:
        return channels_of((place, vector), size)
    joined = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % place.dim()
    known = place.amax(joined, keepdim=True)
    axes = {d for d in range(place.dim()) if d != joined and bool((known != known.narrow(d, 0, 1)).any())}
    if bool(((place >= 0) & (place != known)).any()):
        axes.add(joined)
    return channels_of((place, vector), size, tuple(sorted(axes)))
