"""Where a stage's values can be rotated without changing its function: groups of values that must turn together.

A value x becomes x R, R orthogonal. What writes it has R folded into its weight, what reads it R^T: residual streams
between norms, values between the heads of an attention and its output projection (J. Ashkboos et al. 2024, "QuaRot",
arXiv 2404.00456; Z. Liu et al. 2024, "SpinQuant", arXiv 2405.16406). The gain of a norm moves into the linears behind
it. A LayerNorm takes the mean away: R is chosen such that it keeps means, so that the norm stays as it is and needs no
projection of its writers. Where neither is possible, x is turned at run time, by a product that costs what it costs.
Found by following the graph from what linears read. Must not know matrices, samples, schemes or prices.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Node

from vlacompile.compiler.precision.rotate.channels import (
    Channels,
    Whole,
    channels_of,
    moved_down,
    moved_up,
    moves,
    over_last,
    shape_of,
    sources_of,
    tensors,
    whole,
)
from vlacompile.compiler.precision.rotate.rules import READERS, WRITERS, Conflict, item_of
from vlacompile.compiler.staging.stages import StageGraph

Edge = tuple[Node, Node]  # (user, what it reads)
SMALLEST = 4  # features below which nothing is rotated


@dataclass
class Places:
    """A group. seed: the value that the search began at. values: what is rotated, by folding. enters, leaves: edges on
    which a value is turned, or turned back, at run time; entered: {value: its channels behind the turn}. reads: linears
    whose columns, and writes: layers whose rows (columns of an embedding) have the rotation folded in. scaled: {linear:
    constant that its result is multiplied by}, folded into its rows. constants: {(user, constant): its channels}.
    neutral: {(user, constant): 1 or 0}: gains and shifts of norms, which readers have instead. keeps_mean: a norm, or a
    sum with equal numbers, needs it."""

    seed: Node
    size: int
    values: dict[Node, Channels] = field(default_factory=dict)
    entered: dict[Node, Channels] = field(default_factory=dict)
    enters: set[Edge] = field(default_factory=set)
    leaves: set[Edge] = field(default_factory=set)
    reads: dict[Node, Channels] = field(default_factory=dict)
    writes: dict[Node, Channels] = field(default_factory=dict)
    scaled: dict[Node, Node] = field(default_factory=dict)
    constants: dict[Edge, Channels] = field(default_factory=dict)
    neutral: dict[Edge, float] = field(default_factory=dict)
    keeps_mean: bool = False

    @property
    def turned(self) -> tuple[Node, ...]:
        """Values that are turned at run time, each once."""
        return tuple(self.entered)

    @property
    def turned_back(self) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(n for _, n in sorted(self.leaves, key=lambda e: (e[1].name, e[0].name))))

    @property
    def free(self) -> bool:
        """Whether nothing is computed at run time that was not before."""
        return not self.enters and not self.leaves

    @property
    def online(self) -> bool:
        """Whether nothing is folded but into readers."""
        return not self.writes and not self.constants

    def of(self, user: Node, node: Node) -> Channels | None:
        """How `user` sees `node`."""
        if (user, node) in self.leaves:
            return None
        return self.entered[node] if (user, node) in self.enters else self.values.get(node)


def places_of(stage: StageGraph, seed: Node, size: int, users: tuple[Node, ...] = ()) -> Places:
    """The group of a value whose last dimension is made of vectors of `size` numbers. users: those that are to read it
    rotated, however it comes about; without any, the value itself must be computed so. Raises Conflict where that
    cannot be."""
    return _Search(stage, seed, over_last(shape_of(seed)[-1], size)).run(users)


def linears_of(stage: StageGraph, value: Node) -> list[Node]:
    """The linears with a constant weight that read a value."""
    return [u for u in value.users if u.target is torch.ops.aten.linear.default and u.args[0] is value
            and u.args[1].op == "get_attr" and stage.constants[u.args[1].target].dtype.is_floating_point]


class _Search:
    def __init__(self, stage: StageGraph, seed: Node, channels: Channels):
        self.stage, self.seed, self.channels = stage, seed, channels
        self.found = Places(seed, channels.size)
        self.expects: list[tuple[Node, Node, Channels]] = []
        self.plain: set[Edge] = set()
        self.queue: deque[Node | Edge] = deque()

    def run(self, users: tuple[Node, ...]) -> Places:
        if not users and not self.writable(self.seed, self.channels.aligned(len(shape_of(self.seed)))):
            raise Conflict(f"%{self.seed.name} cannot be computed turned")
        if not users:
            self.set(self.seed, self.channels)
        for user in users:
            self.require(user, self.seed, self.channels)
        while self.queue:
            at = self.queue.popleft()
            if isinstance(at, tuple):
                self._down(*at)
                continue
            if at in self.found.values:
                self._up(at)
                for user in list(at.users):
                    self._down(user, at)
        for user, node, want in self.expects:
            got = self.found.of(user, node)
            if got is None or not got.same(want.aligned(got.place.dim())):
                raise Conflict(f"%{node.name} would have to turn in two ways")
        for user, node in self.plain:
            if self.found.of(user, node) is not None:
                raise Conflict(f"%{user.name} reads %{node.name}, which would turn")
        return self.found

    # what rules call

    def require(self, user: Node, node: Node, channels: Channels) -> None:
        """`node` must be so where `user` reads it."""
        self.expects.append((user, node, channels))
        if self.found.of(user, node) is not None:
            return
        if moves(item_of(node) or node):
            self._require_moved(node, whole(channels, shape_of(node)))
        elif self.writable(node, channels):
            self.set(node, channels)
        else:
            self._enter(user, node, channels)

    def set(self, node: Node, channels: Channels) -> None:
        """The value is so: it is computed so, or follows from what is."""
        channels = channels.aligned(len(shape_of(node)))
        before = self.found.values.get(node)
        if before is not None:
            if not before.same(channels):
                raise Conflict(f"%{node.name} would have to turn in two ways")
            return
        if node.meta["val"].dtype != torch.float32:
            raise Conflict(f"%{node.name} is not in f32")
        self.found.values[node] = channels
        self.queue.append(node)

    def operand(self, user: Node, argument, channels: Channels) -> None:
        """An operand of a sum (or of a choice) that is `channels`: a number, a constant, or a value; it may
        broadcast."""
        if not isinstance(argument, Node):
            self.found.keeps_mean = True
            return
        shape = shape_of(argument)
        full = [-a <= len(shape) and shape[a] == channels.place.shape[a] for a in channels.axes]
        if not any(full):
            self.found.keeps_mean = True
            self.plain.add((user, argument))
            return
        if not all(full):
            raise Conflict(f"%{argument.name} broadcasts over part of the channels")
        mine = channels.aligned(len(shape))
        if argument.op == "get_attr":
            self.found.constants[user, argument] = mine
        else:
            self.require(user, argument, mine)

    def writable(self, node: Node, channels: Channels) -> bool:
        rule = WRITERS.get(getattr(node.target, "overloadpacket", None))
        return (node.op == "call_function" and rule is not None and channels.pure
                and node.meta["val"].dtype == torch.float32 and rule(self, node, channels, True))

    # both directions

    def _up(self, node: Node) -> None:
        channels, source = self.found.values[node], item_of(node) or node
        if moves(source):
            self._require_moved(node, whole(channels, shape_of(node)))
            return
        rule = WRITERS.get(getattr(node.target, "overloadpacket", None))
        if rule is None or not rule(self, node, channels, False):
            raise Conflict(f"%{node.name} cannot be computed turned")

    def _down(self, user: Node, node: Node) -> None:
        channels = self.found.of(user, node)
        if channels is None:
            return
        if user.op == "call_function" and moves(user):
            self._moved(user, node)
            return
        rule = READERS.get(getattr(user.target, "overloadpacket", None)) if user.op == "call_function" else None
        if rule is None or not rule(self, user, node, channels):
            self.leave(user, node)

    def leave(self, user: Node, node: Node) -> None:
        channels = self.found.of(user, node)
        if not channels.last:
            raise Conflict(f"%{user.name} reads %{node.name}, whose channels are not the last dimension")
        if (user, node) in self.found.enters:
            raise Conflict(f"%{user.name} cannot read %{node.name} turned")
        self.found.leaves.add((user, node))

    def _enter(self, user: Node, node: Node, channels: Channels) -> None:
        channels = channels.aligned(len(shape_of(node)))
        before = self.found.entered.setdefault(node, channels)
        if not channels.last or not channels.pure or not before.same(channels):
            raise Conflict(f"%{node.name} cannot be turned for %{user.name}")
        if node.op == "get_attr" or node.meta["val"].dtype != torch.float32:
            raise Conflict(f"%{node.name} is no value in f32")
        self.found.enters.add((user, node))
        self.queue.append((user, node))

    # moves of elements

    def _require_moved(self, node: Node, value: Whole) -> None:
        source = item_of(node) or node
        indices = sources_of(source)
        indices = indices if source is node else indices[node.args[1]]
        for argument, wanted in zip(tensors(source), moved_up(source, indices, value), strict=True):
            if not bool((wanted[0] >= 0).any()) or self.found.of(source, argument) is not None:
                continue
            if argument.op == "get_attr":
                self.found.constants[source, argument] = self._channels(argument, wanted, None)
                self._moved(source, argument)
            elif moves(item_of(argument) or argument):
                self._require_moved(argument, wanted)
            else:
                conv = argument.target in (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default)
                self.require(source, argument, self._channels(argument, wanted, (1,) if conv else (-1,)))

    def _channels(self, node: Node, value: Whole, axes: tuple[int, ...] | None) -> Channels:
        found = channels_of(value, self.channels.size, axes)
        if found is None:
            raise Conflict(f"%{node.name} has the channels apart")
        return found

    def _moved(self, user: Node, node: Node) -> None:
        given = [self.found.of(user, n) or self.found.constants.get((user, n)) for n in tensors(user)]
        if any(c is not None and not c.pure for c in given) and len(given) > 1:
            self.leave(user, node)
            return
        indices = sources_of(user)
        results = [(user, indices)] if isinstance(indices, torch.Tensor) else [
            (u, indices[u.args[1]]) for u in user.users]
        found = [moved_down(user, where, given) for _, where in results]
        if None in found:
            if node.op == "get_attr":
                raise Conflict(f"%{user.name} takes channels apart")
            self.leave(user, node)
            return
        as_read = next(c for c in given if c is not None)
        for (result, _), channels in zip(results, found, strict=True):
            if bool((channels.place >= 0).any()):
                self.set(result, replace(channels, gain=as_read.gain, shift=as_read.shift))
