"""Values that grow by concatenation, step by step, and values of all steps that are put together at the end.

Owns how they are recognised. Must not know what becomes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import is_random
from vlacompile.compiler.graph.program import Program, type_text
from vlacompile.compiler.graph.work_bound import spend

_ATEN = torch.ops.aten
_FEWEST = 2  # steps


@dataclass(frozen=True)
class Growth:
    """cats[i] = cat([root or cats[i - 1], rows[i]], axis). each: size of a row along the axis."""

    axis: int
    root: Node
    rows: tuple[Node, ...]
    cats: tuple[Node, ...]
    constant: bool = False  # all rows are the same constant

    @property
    def each(self) -> int:
        return self.rows[0].meta["val"].shape[self.axis]

    @property
    def begin(self) -> int:
        return self.root.meta["val"].shape[self.axis]


@dataclass(frozen=True)
class Collection:
    """node = cat(items, axis) or stack(items, axis), with one item per step."""

    node: Node
    axis: int
    items: tuple[Node, ...]

    @property
    def stacked(self) -> bool:
        return self.node.target is _ATEN.stack.default


@dataclass(frozen=True)
class Growing:
    growths: tuple[Growth, ...]
    collections: tuple[Collection, ...]

    @property
    def steps(self) -> int:
        """The longest growth's; without one the longest collection's."""
        longest = max((len(c.items) for c in self.collections), default=0)
        return max((len(g.rows) for g in self.growths), default=longest)


def growing_values(program: Program) -> Growing:
    place = {n: i for i, n in enumerate(program.graph.nodes)}
    grown = tuple(g for g in _growths(program) if g.constant or all(
        _depends(b, a, place) for a, b in zip(g.rows, g.rows[1:], strict=False)))
    if all(g.constant for g in grown):  # padding of one thing after the other, not steps of a loop
        grown = ()
    level = _levels(program, grown)
    found = [c for c in _collections(program) if _is_one_per_step(c, level, place)]
    return Growing(grown, tuple(found))


def _growths(program: Program) -> list[Growth]:
    grows: dict[Node, tuple[Node, Node, int]] = {}  # cat -> (what it grows, its row, axis)
    nexts: dict[Node, list[Node]] = {}
    for node in program.graph.nodes:
        if node.target is not _ATEN.cat.default or len(node.args[0]) != 2:
            continue
        before, row = node.args[0]
        axis = (node.args[1] if len(node.args) > 1 else 0) % node.meta["val"].dim()
        if before.meta["val"].dim() == row.meta["val"].dim() and row.meta["val"].numel():
            grows[node] = before, row, axis
            nexts.setdefault(before, []).append(node)
    found, taken = [], set()
    for first, (root, row, axis) in grows.items():
        if first in taken or len(nexts[root]) > 1:
            continue
        cats = [first]
        while True:
            more = nexts.get(cats[-1], [])
            if len(more) != 1 or grows[more[0]][2] != axis or not _same_type(grows[more[0]][1], row):
                break
            cats.append(more[0])
        if len(cats) >= _FEWEST:
            taken.update(cats)
            rows = tuple(grows[c][1] for c in cats)
            found.append(Growth(axis, root, rows, tuple(cats), all(_same_constant(program, row, r) for r in rows)))
    return found


def _collections(program: Program) -> list[Collection]:
    found = []
    for node in program.graph.nodes:
        if node.target not in (_ATEN.cat.default, _ATEN.stack.default) or len(node.args[0]) <= _FEWEST:
            continue
        items = tuple(node.args[0])
        axis = (node.args[1] if len(node.args) > 1 else 0) % node.meta["val"].dim()
        single = node.target is _ATEN.stack.default or items[0].meta["val"].shape[axis] == 1
        if single and len(set(items)) == len(items) and all(_same_type(items[0], i) for i in items):
            found.append(Collection(node, axis, items))
    return found


def _levels(program: Program, growths: tuple[Growth, ...]) -> dict[Node, int]:
    """{node: how many steps it depends on}"""
    step = {c: i + 1 for g in growths for i, c in enumerate(g.cats)}
    level: dict[Node, int] = {}
    for node in program.graph.nodes:
        level[node] = max([step.get(node, 0), *(level[i] for i in node.all_input_nodes)])
    return level


def _is_one_per_step(c: Collection, level: Mapping[Node, int], place: Mapping[Node, int]) -> bool:
    """The item of the last step may be that of the step before, computed on: nothing grows any more."""
    levels = [level[i] for i in c.items]
    if levels == list(range(levels[0], levels[0] + len(levels))) and levels[-1] > 0:
        return True
    return all(_depends(b, a, place) for a, b in zip(c.items, c.items[1:], strict=False))


def _depends(node: Node, on: Node, place: Mapping[Node, int]) -> bool:
    """Whether a value depends on another; only what stands between the two is looked at."""
    stack, seen = [node], {node}
    while stack:
        value = stack.pop()
        spend()
        for i in value.all_input_nodes:
            if i is on:
                return True
            if i not in seen and place[i] > place[on]:
                seen.add(i)
                stack.append(i)
    return False


def _same_type(a: Node, b: Node) -> bool:
    return type_text(a.meta["val"]) == type_text(b.meta["val"])


def _same_constant(program: Program, a: Node, b: Node) -> bool:
    if a.op != b.op or a.all_input_nodes or b.all_input_nodes:
        return False
    if a.op == "get_attr":
        one, other = program.constants[a.target], program.constants[b.target]
        return one is other or (not one.is_meta and not other.is_meta and torch.equal(one, other))
    return a.op == "call_function" and not is_random(a) and repr((a.target, a.args, a.kwargs)) == repr(
        (b.target, b.args, b.kwargs))
