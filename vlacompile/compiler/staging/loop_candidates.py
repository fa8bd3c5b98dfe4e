"""Where in a trace a sequence of ops is repeated: which intervals may be the iterations of a loop.

Owns what must be equal in every iteration for that. Whether an interval is a loop is found out in `roll_loop.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from vlacompile.compiler.graph.program import Program, op_name, type_text
from vlacompile.compiler.graph.rolled_loop import SCALAR_OPS
from vlacompile.compiler.graph.work_bound import spend

_SHIFTS = 16  # begins of one run that are tried: where a body begins is open by as much as the run has to spare


@dataclass(frozen=True)
class Trace:
    """Ops in the order of the graph. operands: of each, (position in (args, kwargs), node or number)."""

    nodes: list[Node]
    operands: list[list[tuple[tuple, object]]]


@dataclass(frozen=True)
class Candidate:
    """`iterations` times `period` nodes of a trace, from `start`."""

    start: int
    period: int
    iterations: int

    @property
    def nodes(self) -> int:
        return self.period * self.iterations


def trace_of(nodes: list[Node]) -> Trace:
    return Trace(nodes, [list(_operands(n)) for n in nodes])


def candidates(program: Program, trace: Trace, fewest: int) -> list[Candidate]:
    """Repetitions of the signature sequence, the one that covers most nodes first."""
    spend(len(trace.nodes))
    ids: dict[tuple, int] = {}
    codes = np.array([ids.setdefault(_signature(program, n), len(ids)) for n in trace.nodes], dtype=np.int64)
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
    """(begin, length) where `codes` are those of one period later, long enough for `fewest` iterations. Looked for at
    every eighth of a period first: a long run has that many of them one after the other."""
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


def _signature(program: Program, node: Node) -> tuple:
    """What must be equal in every iteration apart from the operands themselves. A weight is its name: layers that
    follow one another have the same ops and other weights."""

    def shape(arg, top: bool):
        if isinstance(arg, Node):
            return arg.target if arg.op == "get_attr" and arg.target in program.parameters else "node"
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
