"""Program -> groups of values, one per dependency set: which value is computed in which stage.

A stage is the set of values with the same dependency set, on the same side of every loop and for the same backbones.
Then cuts between stages are moved to where they cost least, and stages too small for a launch merge into a consumer.
"""

from __future__ import annotations

import heapq
import operator
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch.fx import Node

from vlacompile.compiler.graph.delay import is_delay, root_of
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.minimum_cut import (
    SEVERAL,
    CutProblem,
    bytes_to_keep,
    flow_order,
    place,
    recomputed_by_consumers,
)
from vlacompile.compiler.graph.ops import flops, is_free, is_view
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.graph.work_bound import spend

# Constants of up to this many bytes are always folded.
FOLD_BYTES = 65536


@dataclass(frozen=True)
class Group:
    """sources: the dependency set; empty for constants. after: loops that the values depend on.
    loop: the loop node if the group is a loop. backbones: those whose outputs need it; empty: all."""

    sources: frozenset[str]
    after: frozenset[Node] = field(default=frozenset())
    loop: Node | None = None
    backbones: frozenset[str] = field(default=frozenset())

    @property
    def is_constant(self) -> bool:
        return not self.sources


@dataclass(frozen=True)
class Partition:
    """homes: {value: groups that compute it}; sources and constants that no op computes have none.
    order: the groups in execution order, without the constant group.
    folded: values of the constant group that are computed at compile time and stored.
    merged: one note per stage that was merged."""

    program: Program
    homes: dict[Node, frozenset[Group]]
    order: tuple[Group, ...]
    folded: frozenset[Node]
    merged: tuple[str, ...] = field(default=())

    @cached_property
    def _members(self) -> dict[Group, list[Node]]:
        table: dict[Group, list[Node]] = {g: [] for g in self.order}
        for node in self.program.graph.nodes:
            for group in self.homes.get(node, ()):
                table[group].append(node)
        return table

    def members(self, group: Group) -> list[Node]:
        """Values that `group` computes, in graph order."""
        return self._members[group]

    def reads(self, group: Group) -> list[Node]:
        """Values that `group` reads and does not compute, sources and constants included, in graph order."""
        members = set(self.members(group))
        spend(1 + len(members))
        needed = {i for m in members for i in m.all_input_nodes if i not in members}
        return sorted(needed, key=self._position.__getitem__)

    @cached_property
    def rank(self) -> dict[Group, int]:
        """Position of each group in `order`."""
        return {g: i for i, g in enumerate(self.order)}

    @cached_property
    def _position(self) -> dict[Node, int]:
        return {n: i for i, n in enumerate(self.program.graph.nodes)}

    def cost_flops(self, group: Group) -> int:
        return sum(flops(n) for n in self.members(group))


def is_loop(node: Node) -> bool:
    return isinstance(node.target, RolledLoop)


def is_loop_result(node: Node) -> bool:
    return is_result(node) and is_loop(node.args[0])


def is_result(node: Node) -> bool:
    """Whether it is one of several results of an op."""
    return node.target is operator.getitem


def partition(program: Program, min_stage_flops: int) -> Partition:
    """Divides `program` into groups; stages below `min_stage_flops` merge into a consumer where that is exact."""
    groups = _groups(program)
    members: dict[Group, list[Node]] = defaultdict(list)
    for node, group in groups.items():
        members[group].append(node)
    position = {g: i for i, g in enumerate(members)}
    edges = {(groups[i], g) for n, g in groups.items() for i in map(root_of, n.all_input_nodes) if i in groups}
    order = flow_order(position, edges)

    homes: dict[Node, frozenset[Group]] = {}
    outputs, feeding = set(program.output_nodes()), _feeding_loops(program)
    for group in reversed(order):
        nodes = tuple(members[group])
        consumed = {n for n in nodes if n in outputs or any(is_delay(u) or homes.get(u, frozenset()) - {group}
                                                            for u in n.users)}
        place(nodes, group, recomputed_by_consumers(_problem(group, nodes, consumed, outputs, feeding)), homes)

    constant = Group(frozenset())
    folded = frozenset(
        n for n in members.get(constant, ()) if n.op == "call_function" and homes[n] == {constant}
        and (n in outputs or any(homes[u] - {constant} for u in n.users if u in homes)))
    for n in members.get(constant, ()):
        homes[n] -= {constant}
    placed = tuple(g for g in order if not g.is_constant and any(g in h for h in homes.values()))
    return _merge_small(Partition(program, homes, placed, folded), min_stage_flops)


def _groups(program: Program) -> dict[Node, Group]:
    """The group of every op and constant; sources have none."""
    serves = _backbones(program)
    deps = _of_every_step(program, dependencies(program), serves)
    after: dict[Node, frozenset[Node]] = {}
    groups: dict[Node, Group] = {}
    for node in program.graph.nodes:
        if node.op in ("placeholder", "output"):
            after[node] = frozenset()
            continue
        after[node] = frozenset().union(*(after[i] for i in node.all_input_nodes))
        if is_delay(node):  # no stage computes it: the runtime keeps the value of the previous observation
            continue
        if is_loop(node):
            groups[node] = Group(deps[node], after[node], node, serves[node])
            after[node] |= {node}
        elif is_result(node) and node.args[0] in groups:  # of an op that serves more than this result does
            groups[node] = groups[node.args[0]]
        elif deps[node]:
            groups[node] = Group(deps[node], after[node], None, serves[node])
        else:
            groups[node] = Group(frozenset())
    return groups


def _of_every_step(program: Program, deps: dict[Node, frozenset[str]],
                   serves: Mapping[Node, frozenset[str]]) -> dict[Node, frozenset[str]]:
    """What depends on a carried value runs in every step, whatever was written: it may as well depend on all that
    anything of the kind does, so that it is one stage. Of several backbones, on all that those of it depend on that
    serve the same ones, or more: what is read serves at least what reads it."""
    carried = program.carried.keys()
    mine = {n: names for n, names in deps.items() if n.op != "output" and not names.isdisjoint(carried)}
    every: dict[frozenset[str], frozenset[str]] = {}
    for which in {serves[n] for n in mine}:
        read = (names for n, names in mine.items() if not serves[n] or (which and serves[n] >= which))
        every[which] = frozenset().union(*read)
    return deps | {n: every[serves[n]] for n in mine}


def _backbones(program: Program) -> dict[Node, frozenset[str]]:
    """{value: backbones whose output depends on it}; empty: all of them."""
    every = frozenset(program.backbones)
    of = {name: backbone for backbone, name in program.backbones.items()}
    given = dict(zip(program.outputs, program.output_nodes(), strict=True))
    own = {given[name]: frozenset({backbone}) for name, backbone in of.items()}
    takers = [(given[s.next], program.placeholders()[name]) for name, s in program.carried.items()]
    reaches: dict[Node, frozenset[str]] = {}
    while True:
        for node in reversed(program.graph.nodes):
            reaches[node] = own.get(node, frozenset()).union(*(reaches[u] for u in node.users))
        more = [(made, taken) for made, taken in takers if not reaches[taken] <= own.get(made, frozenset())]
        if not more:
            break
        for made, taken in more:  # who reads a carried value needs in the step before what makes it
            own[made] = own.get(made, frozenset()) | reaches[taken]
    return {node: frozenset() if names == every else names for node, names in reaches.items()}


def _problem(group: Group, nodes: tuple[Node, ...], consumed: set[Node], outputs: set[Node],
             feeding: set[Node]) -> CutProblem:
    def pinned(node: Node) -> bool:
        if any(is_delay(u) for u in node.users):
            return True
        if node in outputs or is_loop(node) or is_loop_result(node) or _is_loop_table(node):
            return True
        if node.op == "get_attr" or not is_free(node):
            return True
        # Values that a loop reads would be recomputed in every iteration, so only views may move into the loop.
        return node in feeding and not (is_view(node) or node.target is operator.getitem)

    def cost(node: Node) -> int:
        size = bytes_to_keep(node)
        if not group.is_constant or size >= SEVERAL:
            return size
        return 0 if size <= FOLD_BYTES else size

    return CutProblem(nodes, consumed, {n for n in nodes if pinned(n)}, cost)


def _feeding_loops(program: Program) -> set[Node]:
    """Values that a loop reads, directly or through ops cheap enough to be recomputed inside it."""
    feeding: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if any(is_loop(u) or (u in feeding and is_free(u)) for u in node.users):
            feeding.add(node)
    return feeding


def _is_loop_table(node: Node) -> bool:
    """Whether a loop carries the value or reads it as a table. Such values need a record in the plan: the runtime binds
    them per iteration."""
    return any(is_loop(u) and any(node in operands for operands in u.args[:2]) for u in node.users)


def _merge_small(parts: Partition, min_stage_flops: int) -> Partition:
    """Merges A into a consumer B if A is too small for a launch of its own, or if both depend on the task alone and
    differ only in its sources (a new instruction writes its tokens and mask together). Conditions: both serve the same
    backbones; B runs whenever A would, since deps(A) is a subset of deps(B); A's other readers can read from B; and no
    path from A to B leads through a third stage."""
    merger = _Merger(parts, min_stage_flops)
    pending = list(range(len(merger.order)))  # a heap: merges are tried in execution order
    while pending:
        a = merger.order[heapq.heappop(pending)]
        b = None if a in merger.into else merger.consumer_of(a)
        # after a merge only the producers of A, and B, may have become mergeable
        if b is not None:
            changed = {*merger.producers[a], b}
            merger.merge(a, b)
            for group in changed - {a}:
                heapq.heappush(pending, merger.place[group])
    return merger.result()


class _Merger:
    """readers, producers: neighbours of every group that is not merged away. into: {merged group: group it became part
    of}"""

    def __init__(self, parts: Partition, min_stage_flops: int):
        self.parts, self.minimum, self.order = parts, min_stage_flops, parts.order
        self.place = {g: i for i, g in enumerate(parts.order)}
        self.readers: dict[Group, set[Group]] = {g: set() for g in parts.order}
        self.producers: dict[Group, set[Group]] = {g: set() for g in parts.order}
        for g in parts.order:
            for producer in {p for value in parts.reads(g) for p in parts.homes.get(value, ())}:
                self.readers[producer].add(g)
                self.producers[g].add(producer)
        outputs = set(parts.program.output_nodes())
        self.fixed = {g for g in parts.order if g.loop is not None or any(  # a delay is fed for every observation
            n in outputs or any(map(is_delay, n.users)) for n in parts.members(g))}
        self.flops = {g: parts.cost_flops(g) for g in parts.order}
        self.updates = {name: source.update for name, source in parts.program.sources.items()}
        self.into: dict[Group, Group] = {}
        self.notes: list[str] = []

    def consumer_of(self, a: Group) -> Group | None:
        """The group that `a` can merge into, or None."""
        spend(1 + len(self.readers[a]))
        if a in self.fixed or not self.readers[a]:
            return None
        small = self.flops[a] < self.minimum
        shared = frozenset.intersection(*(c.sources for c in self.readers[a]))
        for b in sorted(self.readers[a], key=self.place.__getitem__):
            if b.loop is None and b.backbones == a.backbones and (small or self._same_task(a, b)) \
                    and b.sources <= shared and not self._path_between(a, b):
                return b
        return None

    def _same_task(self, a: Group, b: Group) -> bool:
        task = {n for n in a.sources | b.sources if self.updates.get(n) == "task"}
        return bool(a.sources & task and b.sources & task) and a.sources - task == b.sources - task

    def _path_between(self, a: Group, b: Group) -> bool:
        """Whether a path from `a` to `b` leads through a third group."""
        stack, seen = [g for g in self.readers[a] if g != b], set()
        while stack:
            g = stack.pop()
            if g == b:
                return True
            if g not in seen:
                spend()
                seen.add(g)
                stack.extend(self.readers[g])
        return False

    def merge(self, a: Group, b: Group) -> None:
        self.notes.append(f"{sorted(a.sources)} into {sorted(b.sources)}")
        self.into[a] = b
        self.flops[b] += self.flops.pop(a)
        for into, of in ((self.readers, self.producers), (self.producers, self.readers)):
            for other in into.pop(a) - {b}:
                of[other].remove(a)
                of[other].add(b)
                into[b].add(other)
        self.readers[b].discard(a)
        self.producers[b].discard(a)

    def result(self) -> Partition:
        final: dict[Group, Group] = {}
        for group in reversed(list(self.into)):  # what it became part of merged later, if at all
            final[group] = final.get(self.into[group], self.into[group])
        homes = {n: frozenset(final.get(g, g) for g in h) for n, h in self.parts.homes.items()}
        left = {g: self.place[g] for g in self.order if g not in final}
        order = flow_order(left, {(g, r) for g in left for r in self.readers[g]})
        return replace(self.parts, homes=homes, order=tuple(order), merged=tuple(self.notes))
