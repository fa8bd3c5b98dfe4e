"""Finds the denoising loop in a trace that has it unrolled, and rolls it up again.

The values that depend on the carried sample fall into K structurally identical bodies. What differs
between bodies becomes a table with one row per iteration; what is the same is an invariant; what one
body hands to the next is carried. Nothing is assumed: every operand of every node is compared. A first
iteration that is computed differently stays in front of the loop.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.fx import Graph, Node

from vlacompile.capture.iterations import TRACED
from vlacompile.capture.program import Program, ProgramEditor, op_name, type_text
from vlacompile.staging.dependency import dependencies
from vlacompile.staging.extrapolate import CannotExtrapolate, Extrapolator
from vlacompile.staging.rolled import SCALAR_OPS, RolledLoop

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class LoopSearch:
    """program: with the loop rolled up, or the input itself. notes: what was found, or why not."""

    program: Program
    found: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Slot:
    """One operand of one body node, over all iterations."""

    node: int  # index in the body
    position: tuple  # path in (args, kwargs)
    operands: tuple  # one Node (or number) per iteration


@dataclass(frozen=True)
class _Candidate:
    start: int
    period: int
    iterations: int


class _NoLoop(Exception):
    """Why a candidate is not a loop."""


def find_loop(program: Program) -> LoopSearch:
    """Roll up the loop of every source with update class "step" (noise to be denoised), then those that start from
    anything else (tokens that are decoded one after the other)."""
    notes: list[str] = []
    before = program
    for name in [n for n in program.placeholders() if program.sources[n].update == "step"]:
        deps = dependencies(program)
        trace = [n for n in program.graph.nodes if _is_op(n) and name in deps[n]]
        rolled, said = _search(program, trace, 2)
        notes += [f"from {name}: {note}" for note in said]
        program = rolled or program
    while True:
        rolled, said = _from_anything(program)
        notes += said
        if rolled is None:
            return LoopSearch(program, program is not before, tuple(notes or ["no body is repeated"]))
        program = rolled


def _from_anything(program: Program) -> tuple[Program | None, list[str]]:
    """A loop among the values of one dependency set, at least three times through the same weights."""
    deps, traces = dependencies(program), {}
    for node in program.graph.nodes:
        if _is_op(node) and deps[node]:
            traces.setdefault(deps[node], []).append(node)
    for sources, trace in traces.items():
        if any(n.op == "get_attr" and n.target in program.parameters for t in trace for n in t.all_input_nodes):
            rolled, notes = _search(program, trace, 3 if program.iterations is None else 2)
            if rolled is not None:
                return rolled, [f"of {', '.join(sorted(sources))}: {notes[-1]}"]
    return None, []


def _is_op(node: Node) -> bool:
    return node.op == "call_function" and not isinstance(node.target, RolledLoop)


def _search(program: Program, trace: list[Node], fewest: int) -> tuple[Program | None, list[str]]:
    """(the program with the loop rolled up, or None; what was tried and why it was refused)."""
    notes = []
    for candidate in _candidates(program, trace, fewest):
        try:
            rolled = _roll(program, trace, candidate)
        except (_NoLoop, CannotExtrapolate) as reason:
            notes.append(f"{candidate.iterations} x {candidate.period} nodes refused: {reason}")
            continue
        return rolled, [*notes, f"{_total(program, candidate)} iterations of {candidate.period} nodes"]
    return None, [*notes, f"no repeated body in {len(trace)} nodes"]


def _total(program: Program, c: _Candidate) -> int:
    """Iterations of the whole function; the traced ones and those that follow from them."""
    return c.iterations if program.iterations is None else c.iterations + program.iterations - TRACED


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


def _candidates(program: Program, trace: list[Node], fewest: int, limit: int = 8) -> list[_Candidate]:
    """Repetitions of the signature sequence, the one that covers most nodes first."""
    ids: dict[tuple, int] = {}
    codes = np.array([ids.setdefault(_signature(program, n), len(ids)) for n in trace], dtype=np.int64)
    n, found = len(codes), []
    for period in range(1, n // 2 + 1):
        equal = np.concatenate([[False], codes[:-period] == codes[period:], [False]])
        edges = np.flatnonzero(np.diff(equal.astype(np.int8)))
        if not len(edges):
            continue
        runs = edges[1::2] - edges[::2]
        longest = int(runs.argmax())
        length = int(runs[longest])
        iterations = (length + period) // period
        if iterations >= fewest:
            begin = int(edges[2 * longest])
            slack = length + period - iterations * period
            found += [_Candidate(begin + shift, period, iterations) for shift in range(min(slack, 16) + 1)]
    # Most nodes covered, then the shortest body, then the earliest start.
    found.sort(key=lambda c: (-c.period * c.iterations, c.period, c.start))
    return found[:limit * 17]


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


def _slots(trace: list[Node], c: _Candidate) -> Iterator[_Slot]:
    for b in range(c.period):
        columns = [list(_operands(trace[c.start + k * c.period + b])) for k in range(c.iterations)]
        for rows in zip(*columns, strict=True):
            yield _Slot(b, rows[0][0], tuple(operand for _, operand in rows))


def _roll(program: Program, trace: list[Node], c: _Candidate) -> Program:
    region = trace[c.start: c.start + c.period * c.iterations]
    place = {n: divmod(i, c.period) for i, n in enumerate(region)}  # node -> (iteration, index in body)
    carried: dict[int, Node | None] = {}  # body index that is handed on -> what iteration 0 reads
    tables: list[tuple] = []
    invariants: list[Node] = []
    plan: dict[tuple, tuple] = {}  # (body index, position) -> what stands there in the rolled body

    for slot in _slots(trace, c):
        ops = slot.operands
        first, rest = ops[0], ops[1:]
        inner = [place.get(o) if isinstance(o, Node) else None for o in ops]
        if all(p is not None and p == (k, inner[0][1]) for k, p in enumerate(inner)) and inner[0] is not None:
            plan[slot.node, slot.position] = ("body", inner[0][1])
        elif inner[0] is None and all(p is not None and p[0] == k for k, p in enumerate(inner[1:])):
            index = inner[1][1]
            if any(p[1] != index for p in inner[1:]):
                raise _NoLoop(f"{region[slot.node].name} reads different values of the iteration before")
            if carried.setdefault(index, first) is not first:
                raise _NoLoop(f"{region[index].name} would start from two values")
            plan[slot.node, slot.position] = ("carry", index)
        elif any(p is not None for p in inner):
            raise _NoLoop(f"{region[slot.node].name} mixes values from inside and outside of the body")
        elif all(o is first or (not isinstance(o, Node) and o == first) for o in rest):
            if isinstance(first, Node):
                if first not in invariants:
                    invariants.append(first)
                plan[slot.node, slot.position] = ("invariant", invariants.index(first))
            else:
                plan[slot.node, slot.position] = ("number", first)
        else:
            _check_table(region[slot.node], ops)
            if ops not in tables:
                tables.append(ops)
            plan[slot.node, slot.position] = ("table", tables.index(ops))
    _check_uses(region, place, c, carried)
    if not carried:
        raise _NoLoop("nothing is carried from one iteration to the next")
    return _rebuild(program, region, place, c, carried, tables, invariants, plan)


def _check_table(node: Node, operands: tuple) -> None:
    types = {(o.meta["val"].dtype, tuple(o.meta["val"].shape)) if isinstance(o, Node) else "number" for o in operands}
    if len(types) != 1:
        raise _NoLoop(f"{node.name} reads values of different types: {types}")


def _check_uses(region: list[Node], place: dict, c: _Candidate, carried: dict) -> None:
    for node in region:
        iteration, index = place[node]
        outside = [u for u in node.users if u not in place]
        if outside and (iteration != c.iterations - 1 or index not in carried):
            raise _NoLoop(f"{node.name} of iteration {iteration} is read outside by {outside[0].name}")
    for index, initial in carried.items():
        a, b = region[index].meta["val"], initial.meta["val"]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise _NoLoop(f"{region[index].name} changes the type of the carried value")


def _body_graph(region: list[Node], c: _Candidate, carried: dict, tables: list, invariants: list, plan: dict) -> Graph:
    graph, nodes = Graph(), {}

    def port(kind: str, i: int, val) -> Node:
        node = graph.placeholder(f"{kind}_{i}")
        node.meta["val"] = val
        return node

    ports = {("carry", index): port("carry", i, initial.meta["val"])
             for i, (index, initial) in enumerate(carried.items())}
    ports |= {("table", i): port("table", i, ops[0].meta["val"] if isinstance(ops[0], Node)
              else torch.empty((), dtype=torch.float32, device="meta")) for i, ops in enumerate(tables)}
    ports |= {("invariant", i): port("invariant", i, n.meta["val"]) for i, n in enumerate(invariants)}

    for b in range(c.period):
        old = region[b]

        def rebuild(arg, path, b=b):
            choice = plan.get((b, path))
            if choice is not None:
                kind, at = choice
                return nodes[at] if kind == "body" else at if kind == "number" else ports[kind, at]
            if isinstance(arg, (list, tuple)):
                return type(arg)(rebuild(a, (*path, i)) for i, a in enumerate(arg))
            return arg

        args = tuple(rebuild(a, ("args", i)) for i, a in enumerate(old.args))
        kwargs = {k: rebuild(v, ("kwargs", k)) for k, v in old.kwargs.items()}
        nodes[b] = graph.create_node("call_function", old.target, args, kwargs, name=old.name)
        nodes[b].meta = dict(old.meta)
    graph.output(tuple(nodes[index] for index in carried))
    return graph


def _rebuild(program, region, place, c, carried, tables, invariants, plan) -> Program:
    editor, last = ProgramEditor(program), region[-1]
    body = _body_graph(region, c, carried, tables, invariants, plan)
    total = _total(program, c)
    name = f"loop{sum(isinstance(n.target, RolledLoop) for n in program.graph.nodes) or ''}"
    loop = RolledLoop(name, body, total, len(carried), len(tables))
    further = Extrapolator(editor)

    def table(i: int, operands: tuple) -> Node:
        rows = [editor.map(o) if isinstance(o, Node) else o for o in operands]
        rows += [further.row(*operands[-2:], ahead) for ahead in range(1, total - c.iterations + 1)]
        if isinstance(rows[0], Node):
            return editor.emit(_ATEN.stack.default, (rows, 0))
        return editor.constant(f"{name}_table_{i}", torch.tensor(rows, dtype=torch.float32))

    pending = [n for n in program.graph.nodes if n.op != "output"]
    after = _depend_on(pending, set(region))
    for node in (n for n in pending if n not in place and n not in after):
        editor.copy(node)
    assert last in place
    node = editor.emit(
        loop,
        (tuple(editor.map(n) for n in carried.values()),
         tuple(table(i, ops) for i, ops in enumerate(tables)),
         tuple(editor.map(n) for n in invariants)),
        val=tuple(n.meta["val"] for n in carried.values()))
    for i, index in enumerate(carried):
        final = region[(c.iterations - 1) * c.period + index]
        editor.replace(final, editor.emit(operator.getitem, (node, i), like=final, val=final.meta["val"]))
    for node in (n for n in pending if n in after and n not in place):
        editor.copy(node)
    return replace(editor.finish(), iterations=None)


def _depend_on(nodes: list[Node], roots: set[Node]) -> set[Node]:
    after: set[Node] = set()
    for n in nodes:
        if any(i in roots or i in after for i in n.all_input_nodes):
            after.add(n)
    return after
