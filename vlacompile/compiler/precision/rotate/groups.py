"""The groups of a stage's values that can be rotated, as they can be chosen from: named, described, applied in turn.

Owns where the search begins: at what layers write (residual streams), at the values of attentions (between the heads
and the output projection), at what other linears read (turned at run time, in blocks). Must not know errors or
prices.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.precision.rotate.channels import shape_of
from vlacompile.compiler.precision.rotate.find_places import Places, linears_of, places_of
from vlacompile.compiler.precision.rotate.fold_rotation import folded
from vlacompile.compiler.precision.rotate.orthogonal import Rotation, hadamard_orders, rotation
from vlacompile.compiler.precision.rotate.rules import Conflict
from vlacompile.compiler.staging.stages import StageGraph

_ATEN = torch.ops.aten
ATTENTIONS = {_ATEN.scaled_dot_product_attention.default: 2, _ATEN.matmul.default: 1, _ATEN.bmm.default: 1}
WRITING = (_ATEN.linear.default, _ATEN.embedding.default)
SMALLEST = 4  # features below which there is nothing to spread over
BLOCK = 128  # largest vector that is turned at run time where nothing else is gained by larger ones


@dataclass(frozen=True)
class Turn:
    """A product that the rotation adds. rows: of each run of the stage. features: of the value; width: of the square
    matrix that each part of a row is multiplied by."""

    value: str
    rows: int
    features: int
    width: int


@dataclass(frozen=True)
class Group:
    """kind: "stream", "heads" or "input". seed: where it begins, users: that read it rotated (names of nodes); with
    `size` they find the group again. reads: linears that read rotated values. values: how many are rotated. turns:
    products that are computed at run time. matrix: which orthogonal matrix, in words."""

    stage: str
    kind: str
    seed: str
    users: tuple[str, ...]
    size: int
    reads: tuple[str, ...]
    values: int
    turns: tuple[Turn, ...]
    matrix: str

    @property
    def name(self) -> str:
        return f"{self.kind} %{self.seed}"


@dataclass(frozen=True)
class Groups:
    """notes: why values that linears read are in none."""

    found: tuple[Group, ...]
    notes: tuple[str, ...]


def groups_of(stage: StageGraph, among: Iterable[str], seed: int = 0) -> Groups:
    """among: the linears that may be quantised; what none of them reads is left alone. Deterministic."""
    return _Finder(stage, frozenset(among), seed).run()


def rotated(stage: StageGraph, groups: Sequence[Group], seed: int = 0) -> StageGraph:
    """The stage with these groups of it rotated, one after the other: the same function."""
    for group in groups:
        nodes = {n.name: n for n in stage.graph.nodes}
        places = places_of(stage, nodes[group.seed], group.size, tuple(nodes[n] for n in group.users))
        stage = folded(stage, places, matrix_of(group.seed, places, seed))
    return stage


def matrix_of(name: str, places: Places, seed: int) -> Rotation:
    return _matrix(places.size, zlib.crc32(name.encode()) ^ seed, places.keeps_mean)


@functools.lru_cache(maxsize=8)
def _matrix(size: int, seed: int, keeps_mean: bool) -> Rotation:
    return rotation(size, seed, keeps_mean)


class _Finder:
    def __init__(self, stage: StageGraph, among: frozenset[str], seed: int):
        self.stage, self.among, self.seed = stage, among, seed
        self.layers = {x.node for x in layers_of(stage)}
        self.found: list[Group] = []
        self.read: set[str] = set()
        self.seen: set[Node] = set()  # values of streams, and of searches for them that came to nothing
        self.why: dict[str, str] = {}

    def run(self) -> Groups:
        nodes = list(self.stage.graph.nodes)
        for node in nodes:
            if node.target in WRITING and node.name in self.layers and node not in self.seen:
                self._search("stream", node, shape_of(node)[-1], ())
        self._streams_of_readers(nodes)
        for node in nodes:
            position = ATTENTIONS.get(node.target)
            if position is not None and all(isinstance(a, Node) for a in node.args[:position + 1]):
                self._search("heads", node.args[position], shape_of(node.args[position])[-1], (node,))
        for node in nodes:
            users = self._open(node)
            if users:
                block = _block(shape_of(node)[-1])
                if block is None:
                    self.why.setdefault(node.name, f"no vectors of at least {SMALLEST} of its {shape_of(node)[-1]} "
                                        "numbers have a Hadamard matrix")
                else:
                    self._search("input", node, block, users)
        left = {n.args[0].name: self.why.get(n.args[0].name, "nothing behind it can be rotated")
                for n in nodes if n.name in self.among - self.read}
        return Groups(tuple(self.found), tuple(f"{self.stage.name}: %{v} is not rotated: {why}"
                                               for v, why in left.items()))

    def _streams_of_readers(self, nodes: list[Node]) -> None:
        """Streams that no linear writes: they begin at what a convolution, a table or another stage gives."""
        for node in nodes:
            users = self._open(node)
            if users and node not in self.seen:
                self._search("stream", node, shape_of(node)[-1], users)

    def _open(self, node: Node) -> tuple[Node, ...]:
        """Linears in question that read a value and that no group has."""
        return tuple(u for u in linears_of(self.stage, node) if u.name in self.among and u.name not in self.read)

    def _search(self, kind: str, node: Node, size: int, users: tuple[Node, ...]) -> None:
        if size < SMALLEST or node.meta["val"].dtype != torch.float32:
            return
        try:
            places = places_of(self.stage, node, size, users)
        except Conflict as conflict:
            if users:
                self.why.setdefault(node.name, str(conflict))
            return
        reads = tuple(n.name for n in places.reads if n.name in self.among)
        if kind == "stream":
            self.seen |= set(places.values)
        fresh = [n for n in reads if n not in self.read]
        if not fresh or (kind == "heads" and not places.free) or (kind == "stream" and places.online):
            return
        self.read |= set(reads)
        self.found.append(Group(self.stage.name, kind, node.name, tuple(u.name for u in users), size, reads,
                                len(places.values) + len(places.entered), turns_of(places),
                                matrix_of(node.name, places, self.seed).kind))


def turns_of(places: Places) -> tuple[Turn, ...]:
    found = []
    for node, channels in [*places.entered.items(), *((n, places.values[n]) for n in places.turned_back)]:
        shape = shape_of(node)
        place, _ = channels.columns()
        blocks = channels.pure and torch.equal(place, torch.arange(len(place)) % channels.size)
        found.append(Turn(node.name, math.prod(shape[:-1]), shape[-1], channels.size if blocks else shape[-1]))
    return tuple(found)


def _block(features: int) -> int | None:
    """The largest part of a row, up to BLOCK, that has a Hadamard matrix."""
    return next((n for n in range(min(BLOCK, features), SMALLEST - 1, -1)
                 if features % n == 0 and hadamard_orders(n) is not None), None)
