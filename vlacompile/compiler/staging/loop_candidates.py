"""Where a sequence of ops repeats in a trace: intervals that may be the iterations of a loop.

Owns which properties of ops must be equal in every iteration. `roll_loop.py` decides whether an interval is a loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from vlacompile.compiler.graph.program import op_name, type_text
from vlacompile.compiler.graph.rolled_loop import SCALAR_OPS
from vlacompile.compiler.graph.work_bound import spend

_SHIFTS = 16  # starts that are tried per run: a run longer than whole bodies leaves open where the first one starts


@dataclass(frozen=True)
class Trace:
    """Ops in graph order. operands: per op, its (position in (args, kwargs), node or number)."""

    nodes: list[Node]
    operands: list[list[tuple[tuple, object]]]


@dataclass(frozen=True)
class Candidate:
    """`iterations` consecutive bodies of `period` nodes each, from node `start` of a trace."""

    start: int
    period: int
    iterations: int

    @property
    def nodes(self) -> int:
        return self.period * self.iterations


def trace_of(nodes: list[Node]) -> Trace:
    return Trace(nodes, [list(_operands(n)) for n in nodes])


def candidates(same: Collection[str], trace: Trace, fewest: int) -> list[Candidate]:
    """Repetitions in the sequence of op signatures, the one that covers most nodes first. same: names of the constants
    that must be the same ones in every iteration."""
    spend(len(trace.nodes))
    ids: dict[tuple, int] = {}
    codes = np.array([ids.setdefault(_signature(same, n), len(ids)) for n in trace.nodes], dtype=np.int64)
    found = []
    for period in range(1, len(codes) // 2 + 1):
        for begin, length in _runs(codes, period, fewest):
            iterations = (length + period) // period
            slack = length + period - iterations * period
            found += [Candidate(begin + shift, period, iterations) for shift in range(min(slack, _SHIFTS) + 1)]
    # Most nodes covered, then the shortest body, then the earliest start.
    found.sort(key=lambda c: (-c.nodes, c.period, c.start))
    return found


def _runs(codes: np.ndarray, period: int, fewest: int) -> list[tuple[int, int]]:
    """(begin, length) of intervals in which `codes` equal those one period later, long enough for `fewest` iterations.
    First only every eighth of a period is compared: a long run also matches there."""
    spend()
    wanted, step = period * (fewest - 1), max(1, period // 8)
    for s in dict.fromkeys((step, 1)):
        same = np.concatenate([[False], codes[:-period:s] == codes[period::s], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        begins, lengths = edges[::2], edges[1::2] - edges[::2]
        long = lengths >= wanted // s
        if not long.any():
            return []
    return list(zip(begins[long].tolist(), lengths[long].tolist(), strict=True))


def _signature(same: Collection[str], node: Node) -> tuple:
    """The properties of a node that must be equal in every iteration, operands excepted. A weight of a loop over steps
    is identified by its name: consecutive layers of a network have the same ops, but other weights."""

    def shape(arg, top: bool):
        if isinstance(arg, Node):
            return arg.target if arg.op == "get_attr" and arg.target in same else "node"
        if isinstance(arg, (list, tuple)):
            return tuple(shape(a, False) for a in arg)
        if top and node.target in SCALAR_OPS and isinstance(arg, float):
            return "number"
        return repr(arg)

    return (op_name(node.target), type_text(node.meta["val"]), tuple(shape(a, True) for a in node.args),
            tuple((k, shape(v, False)) for k, v in sorted(node.kwargs.items())))


def _operands(node: Node) -> Iterator[tuple[tuple, object]]:
    """(position, operand) of every node or promotable number among the arguments."""

    def walk(arg, path):
        if isinstance(arg, Node):
            yield path, arg
        elif isinstance(arg, (list, tuple)):
            for i, a in enumerate(arg):
                yield from walk(a, (*path, i))
        elif len(path) == 2 and path[0] == "args" and node.target in SCALAR_OPS and isinstance(arg, float):
            yield path, arg

    for i, a in enumerate(node.args):
        yield from walk(a, ("args", i))
    for k, v in node.kwargs.items():
        yield from walk(v, ("kwargs", k))
