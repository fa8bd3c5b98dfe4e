"""Turns one repeated interval of a trace into a loop, or says why it is not one; replaces intervals by loops.

Operands that differ between bodies become tables with one row per iteration; equal ones are invariants; values that one
body passes to the next are carried. Nothing is assumed: every operand of every node is compared.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.rolled_loop import RolledLoop
from vlacompile.compiler.graph.shortened_loops import left_out, loop_of
from vlacompile.compiler.graph.work_bound import spend
from vlacompile.compiler.staging.extrapolate_tables import Extrapolator
from vlacompile.compiler.staging.loop_candidates import Candidate, Trace
from vlacompile.policy.iterations import TRACED

_ATEN = torch.ops.aten


class NoLoop(Exception):
    """Why a candidate is not a loop. loop: set if the loop itself is valid and only its place in the program is not."""

    def __init__(self, why: str, loop: Roll | None = None):
        super().__init__(why)
        self.loop = loop


class NothingCarried(NoLoop):
    """The bodies are independent of one another."""


@dataclass(frozen=True, eq=False)
class Roll:
    """A loop that was found. region: its nodes, iteration after iteration.
    carried: {index in the body of the carried result: node that iteration 0 reads}. tables: {operands, one per
    iteration: number of the table}, invariants: {operand: number}.
    plan: {(index in the body, position in its (args, kwargs)): the operand in the rolled body}.
    gathered: indices in the body of results that are read outside, of every iteration."""

    candidate: Candidate
    region: list[Node]
    carried: dict[int, Node]
    tables: dict[tuple, int]
    invariants: dict[Node, int]
    plan: dict[tuple, tuple]
    gathered: list[int] = field(default_factory=list)


def total_of(program: Program, found: Roll) -> int:
    """Number of iterations of the original function: the traced ones and those that were left out of the trace."""
    return found.candidate.iterations + left_out(program, shortened(program, found))


def shortened(program: Program, found: Roll) -> int | None:
    """The number of the loop, if iterations of it were left out of the trace."""
    return loop_of(program, found.region) if found.candidate.iterations <= TRACED else None


def roll(trace: Trace, c: Candidate, gathers: bool = False) -> Roll:
    """The nodes of a candidate as a loop. gathers: what is read outside may be a result of every iteration. Raises
    NoLoop if they are not one."""
    region = trace.nodes[c.start: c.start + c.nodes]
    place = {n: divmod(i, c.period) for i, n in enumerate(region)}  # node -> (iteration, index in body)
    found = Roll(c, region, {}, {}, {}, {})
    for index, position, operands in _slots(trace, c):
        found.plan[index, position] = _kind(found, place, region[index].name, operands)
    if not found.carried:
        raise NothingCarried("nothing is carried from one iteration to the next")
    _check_uses(found, place, gathers)
    return found


def _slots(trace: Trace, c: Candidate) -> Iterator[tuple[int, tuple, tuple]]:
    """(index in the body, position in its (args, kwargs), one operand per iteration)"""
    for b in range(c.period):
        spend(c.iterations)
        columns = [trace.operands[c.start + k * c.period + b] for k in range(c.iterations)]
        for rows in zip(*columns, strict=True):
            yield b, rows[0][0], tuple(operand for _, operand in rows)


def _kind(found: Roll, place: dict, name: str, ops: tuple) -> tuple:
    """The operand in the rolled body for `ops`, the operands in each iteration."""
    first, rest = ops[0], ops[1:]
    inner = [place.get(o) if isinstance(o, Node) else None for o in ops]
    if inner[0] is not None and all(p is not None and p == (k, inner[0][1]) for k, p in enumerate(inner)):
        return "body", inner[0][1]
    if inner[0] is None and all(p is not None and p[0] == k for k, p in enumerate(inner[1:])):
        index = inner[1][1]
        if any(p[1] != index for p in inner[1:]):
            raise NoLoop(f"{name} reads different values of the iteration before")
        if found.carried.setdefault(index, first) is not first:
            raise NoLoop(f"{found.region[index].name} would start from two values")
        return "carry", index
    if any(p is not None for p in inner):
        raise NoLoop(f"{name} mixes values from inside and outside of the body")
    if any(isinstance(o, Node) and not isinstance(o.meta["val"], torch.Tensor) for o in ops):
        raise NoLoop(f"{name} reads one of several results of an op outside of the body")
    if all(o is first or (not isinstance(o, Node) and o == first) for o in rest):
        if not isinstance(first, Node):
            return "number", first
        return "invariant", found.invariants.setdefault(first, len(found.invariants))
    types = {(o.meta["val"].dtype, tuple(o.meta["val"].shape)) if isinstance(o, Node) else "number" for o in ops}
    if len(types) != 1:
        raise NoLoop(f"{name} reads values of different types: {types}")
    return "table", found.tables.setdefault(ops, len(found.tables))


def _check_uses(found: Roll, place: dict, gathers: bool) -> None:
    region, c = found.region, found.candidate
    for node in region:
        iteration, index = place[node]
        outside = [u for u in node.users if u not in place]
        if outside and (iteration != c.iterations - 1 or index not in found.carried):
            if gathers and index not in found.carried and isinstance(node.meta["val"], torch.Tensor):
                if index not in found.gathered:
                    found.gathered.append(index)
                continue
            raise NoLoop(f"{node.name} of iteration {iteration} is read outside by {outside[0].name}")
    for index, initial in found.carried.items():
        a, b = region[index].meta["val"], initial.meta["val"]
        if not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            raise NoLoop(f"{region[index].name} changes the type of the carried value")


def body_graph(found: Roll) -> Graph:
    """Placeholders are the carried values, a row of each table, then the invariants; outputs the next carried values,
    then what is gathered."""
    graph, nodes = Graph(), {}

    def port(kind: str, i: int, val) -> Node:
        node = graph.placeholder(f"{kind}_{i}")
        node.meta["val"] = val
        return node

    ports = {("carry", index): port("carry", i, initial.meta["val"])
             for i, (index, initial) in enumerate(found.carried.items())}
    ports |= {("table", i): port("table", i, ops[0].meta["val"] if isinstance(ops[0], Node)
              else torch.empty((), dtype=torch.float32, device="meta")) for i, ops in enumerate(found.tables)}
    ports |= {("invariant", i): port("invariant", i, n.meta["val"]) for i, n in enumerate(found.invariants)}

    for b in range(found.candidate.period):
        old = found.region[b]

        def rebuild(arg, path, b=b):
            choice = found.plan.get((b, path))
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
    graph.output(tuple(nodes[index] for index in (*found.carried, *found.gathered)))
    return graph


def rebuild(program: Program, rolls: list[Roll]) -> Program:
    """The program with every region replaced by its loop. Raises CannotExtrapolate, and NoLoop if an operand of a
    region depends on that region."""
    owner = {n: r for r in rolls for n in r.region}
    level = _levels(program, owner)
    order = {n: i for i, n in enumerate(program.graph.nodes)}
    first = {r.region[0]: r for r in rolls}
    pending = [n for n in order if n.op != "output" and (n not in owner or n in first)]
    pending.sort(key=lambda n: (level[owner.get(n, n)], n not in first, order[n]))
    editor = ProgramEditor(program)
    further = Extrapolator(editor)
    number = sum(isinstance(n.target, RolledLoop) for n in program.graph.nodes)
    for node in pending:
        if node in first:
            _emit(program, editor, further, first[node], f"loop{number or ''}")
            number += 1
        else:
            editor.keep(node)
    whole = {shortened(program, r) for r in rolls}
    return replace(editor.finish(), iterations={n: k for n, k in program.iterations.items() if n not in whole})


def _levels(program: Program, owner: dict[Node, Roll]) -> dict[Node | Roll, int]:
    """The largest number of loops on any path that ends at a value or loop: results of a loop are emitted after it."""
    level: dict[Node | Roll, int] = {}
    begun: set[Node | Roll] = set()
    for root in program.graph.nodes:
        stack = [owner.get(root, root)]
        while stack:
            unit = stack[-1]
            reads = [] if unit in level else _reads(unit, owner)
            spend(1 + len(reads))
            missing = [r for r in reads if r not in level]
            if not missing:
                stack.pop()
                level.setdefault(unit, max((level[r] for r in reads), default=0) + isinstance(unit, Roll))
                continue
            around = next((r for r in missing if r in begun), None)
            if around is not None:
                loop = next(u for u in (around, *reversed(stack)) if isinstance(u, Roll) and u in begun
                            and u not in level)
                raise NoLoop("an operand from outside of its body depends on its results", loop)
            begun.add(unit)
            stack += missing
    return level


def _reads(unit: Node | Roll, owner: dict[Node, Roll]) -> list[Node | Roll]:
    if isinstance(unit, Node):
        return [owner.get(i, i) for i in unit.all_input_nodes]
    operands = [*unit.carried.values(), *(o for row in unit.tables for o in row), *unit.invariants]
    return [owner.get(o, o) for o in operands if isinstance(o, Node)]


def _emit(program: Program, editor: ProgramEditor, further: Extrapolator, found: Roll, name: str) -> None:
    c, total = found.candidate, total_of(program, found)
    loop = RolledLoop(name, body_graph(found), total, len(found.carried), len(found.tables))

    def table(i: int, operands: tuple) -> Node:
        rows = [editor.map(o) if isinstance(o, Node) else o for o in operands]
        rows += [further.row(*operands[-2:], ahead) for ahead in range(1, total - c.iterations + 1)]
        if isinstance(rows[0], Node):
            return editor.emit(_ATEN.stack.default, (rows, 0))
        return editor.constant(f"{name}_table_{i}", torch.tensor(rows, dtype=torch.float32))

    node = editor.emit(
        loop,
        (tuple(editor.map(n) for n in found.carried.values()),
         tuple(table(i, ops) for i, ops in enumerate(found.tables)),
         tuple(editor.map(n) for n in found.invariants)),
        val=tuple(n.meta["val"] for n in found.carried.values()))
    for i, index in enumerate(found.carried):
        final = found.region[(c.iterations - 1) * c.period + index]
        editor.replace(final, editor.emit(operator.getitem, (node, i), like=final, val=final.meta["val"]))
