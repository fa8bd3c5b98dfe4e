"""Integrates a flow with fewer evaluations, where the loop is Euler's method.

The body of such a loop adds dt times a velocity to the carried sample, or takes it from it; that form is recognised,
whatever computes the velocity. Evaluations are made at a subset of the loop's own times, so that the network only sees
rows of its tables that it was trained with. Between them the flow is integrated by Euler's method, or by the
second-order Adams-Bashforth method with unequal steps (Hairer, Norsett and Wanner, Solving Ordinary Differential
Equations I, III.5), which reuses the velocity of the previous evaluation and needs no further evaluations.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch.fx import Graph, GraphModule, Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.fold import fold
from vlacompile.compiler.graph.program import Program, ProgramEditor, infer_val
from vlacompile.compiler.graph.rolled_loop import RolledLoop

_ATEN = torch.ops.aten
SOLVERS = ("euler", "adams-bashforth-2")


@dataclass(frozen=True)
class EulerLoop:
    """node: the loop. velocity: a node of the loop's body. reader: the node that multiplies it by dt, or adds it to the
    sample. steps: dt of every iteration."""

    node: Node
    velocity: Node
    reader: Node
    steps: tuple[float, ...]


def euler_loop(program: Program) -> EulerLoop | str:
    """The single loop of `program` as an Euler integration, or the reason why it is not one."""
    loops = [n for n in program.graph.nodes if isinstance(n.target, RolledLoop)]
    if len(loops) != 1:
        return f"there are {len(loops)} loops"
    loop: RolledLoop = loops[0].target
    if loop.carried != 1:
        return f"{loop.carried} values are carried"
    carry, following = loop.placeholders()[0], loop.next_values()[0]
    added, sign = _term_added(following, carry)
    if added is None:
        return "the next sample is not the sample plus something"
    varying = _reached_from(carry, loop.body)
    for velocity, dt in _factors(added):
        if velocity in varying and not (isinstance(dt, Node) and dt in varying):
            steps = _constant_per_iteration(program, loops[0], dt)
            if steps is None:
                return "the step size depends on an input"
            reader = following if velocity is added else added
            return EulerLoop(loops[0], velocity, reader, tuple(sign * s for s in steps))
    return "what is added is not a velocity times a step size"


def _term_added(node: Node, carry: Node) -> tuple[Node | None, int]:
    """(what is added to the sample, 1), or (what is taken from it, -1); (None, 0) if the next sample is no such sum."""
    if node.kwargs or carry not in node.args:
        return None, 0
    first, second = node.args
    if node.target is _ATEN.add.Tensor:
        return (second if first is carry else first), 1
    return (second, -1) if node.target is _ATEN.sub.Tensor and first is carry else (None, 0)


def _factors(node: Node) -> list[tuple[Node, object]]:
    """Candidates for (velocity, dt): both orders of the factors."""
    if not isinstance(node, Node) or node.target is not _ATEN.mul.Tensor:
        return [(node, 1.0)] if isinstance(node, Node) else []
    a, b = node.args
    return [(x, y) for x, y in ((a, b), (b, a)) if isinstance(x, Node)]


def _reached_from(start: Node, graph: Graph) -> set[Node]:
    reached = {start}
    for node in graph.nodes:
        if any(i in reached for i in node.all_input_nodes):
            reached.add(node)
    return reached


def _constant_per_iteration(program: Program, node: Node, dt) -> tuple[float, ...] | None:
    """The value of `dt`, a number or a node of the body, in every iteration; None if it depends on an input."""
    loop: RolledLoop = node.target
    if not isinstance(dt, Node):
        return (float(dt),) * loop.iterations
    needed, stack = set(), [dt]
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.all_input_nodes)
    ports = dict(zip(loop.placeholders(), (*node.args[0], *node.args[1], *node.args[2]), strict=True))
    deps = dependencies(program)
    read = [p for p in loop.placeholders() if p in needed]
    if dt.meta["val"].numel() != 1 or any(deps[ports[p]] for p in read):
        return None
    graph, copied = Graph(), {}
    for n in loop.body.nodes:
        if n in needed:
            copied[n] = graph.node_copy(n, lambda m: copied[m])
    graph.output(copied[dt])
    known = {p: program.constants[ports[p].target] if ports[p].op == "get_attr" else
             fold(program, frozenset({ports[p]}))[ports[p]] for p in read}
    tables = set(loop.placeholders()[loop.carried: loop.carried + loop.tables])
    module = GraphModule(torch.nn.Module(), graph)
    return tuple(float(module(*(known[p][k] if p in tables else known[p] for p in read)))
                 for k in range(loop.iterations))


def kept_iterations(written: int, evaluations: int) -> list[int]:
    """Which iterations of the loop are evaluated: the first, and evenly spaced others."""
    return [i * written // evaluations for i in range(evaluations)]


def coefficients(steps: tuple[float, ...], kept: list[int], solver: str) -> list[tuple[float, float]]:
    """Per evaluation: (factor of its velocity, factor of the previous evaluation's velocity)."""
    at = [sum(steps[:i]) for i in (*kept, len(steps))]
    widths = [b - a for a, b in itertools.pairwise(at)]
    rows = []
    for i, h in enumerate(widths):
        past = h * h / (2 * widths[i - 1]) if solver == "adams-bashforth-2" and i else 0.0
        rows.append((h + past, -past))
    return rows


@dataclass(frozen=True)
class Resampling:
    """A loop with another number of evaluations, and how its operands follow from those of the loop as written.

    kept: rows of the tables. tables, invariants: positions of those that the new body still reads. added: further
    tables, [evaluations] each. started: shapes of further carried values, which start at zero.
    """

    loop: RolledLoop
    kept: tuple[int, ...]
    tables: tuple[int, ...]
    invariants: tuple[int, ...]
    added: tuple[torch.Tensor, ...]
    started: tuple[tuple[int, ...], ...]

    def run(self, carried: tuple, tables: tuple, invariants: tuple) -> tuple:
        """Runs the new loop in PyTorch on the operands of the loop as written; returns the final carried values."""
        rows = torch.tensor(self.kept)
        return self.loop((*carried, *(torch.zeros(s) for s in self.started)),
                         (*(tables[i].index_select(0, rows) for i in self.tables), *self.added),
                         tuple(invariants[i] for i in self.invariants))

    def put_into(self, program: Program, old: Node) -> Program:
        """`program` with the loop node `old` replaced by this loop."""
        editor = ProgramEditor(program)
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            editor.replace(node, self._emit(editor, old)) if node is old else editor.copy(node)
        return editor.finish()

    def _emit(self, editor: ProgramEditor, old: Node) -> Node:
        carried, tables, invariants = old.args
        rows = [editor.map(tables[i]) for i in self.tables]
        if len(self.kept) < old.target.iterations:
            index = editor.constant("kept_iterations", torch.tensor(self.kept))
            rows = [editor.emit(_ATEN.index_select.default, (t, 0, index)) for t in rows]
        rows += [editor.constant(f"solver_{i}", t) for i, t in enumerate(self.added)]
        starts = [editor.constant(f"solver_start_{i}", torch.zeros(s)) for i, s in enumerate(self.started)]
        val = old.meta["val"] + tuple(torch.empty(s, device="meta") for s in self.started)
        operands = ((*map(editor.map, carried), *starts), tuple(rows),
                    tuple(editor.map(invariants[i]) for i in self.invariants))
        return editor.emit(self.loop, operands, like=old, val=val)


def resample(euler: EulerLoop, solver: str, evaluations: int) -> Resampling:
    """The same flow with `evaluations` evaluations of the velocity."""
    loop: RolledLoop = euler.node.target
    kept = kept_iterations(loop.iterations, evaluations)
    rows = coefficients(euler.steps, kept, solver)
    two = any(past for _, past in rows)
    body, read = _body(loop, euler, two)
    tables = tuple(i for i in range(loop.tables) if ("table", i) in read)
    invariants = tuple(i for i in range(len(euler.node.args[2])) if ("invariant", i) in read)
    added = tuple(torch.tensor([r[i] for r in rows]) for i in range(1 + two))
    new = replace(loop, body=body, iterations=evaluations, carried=1 + two, tables=len(tables) + len(added))
    started = (tuple(euler.velocity.meta["val"].shape),) if two else ()
    return Resampling(new, tuple(kept), tables, invariants, added, started)


def _body(loop: RolledLoop, euler: EulerLoop, two: bool) -> tuple[Graph, set[tuple[str, int]]]:
    """The body with another update of the sample, and the ports that it reads."""
    graph, copied = Graph(), {}
    old = loop.placeholders()
    ports = {p: ("table", i) for i, p in enumerate(old[loop.carried: loop.carried + loop.tables])}
    ports |= {p: ("invariant", i) for i, p in enumerate(old[loop.carried + loop.tables:])}
    needed, stack = set(), [euler.velocity]
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.all_input_nodes)

    def port(name: str, val: torch.Tensor) -> Node:
        node = graph.placeholder(name)
        node.meta["val"] = val
        return node

    def op(target, *args: Node) -> Node:
        node = graph.call_function(target, args)
        node.meta["val"] = infer_val(node)
        return node

    velocity_val, number = euler.velocity.meta["val"], torch.empty((), device="meta")
    sample = copied[old[0]] = port("carry_0", old[0].meta["val"])
    before = port("carry_1", velocity_val) if two else None
    for p in (p for p, (kind, _) in ports.items() if kind == "table" and p in needed):
        copied[p] = port(p.name, p.meta["val"])
    now, past = port("solver_now", number), port("solver_before", number) if two else None
    for p in (p for p, (kind, _) in ports.items() if kind == "invariant" and p in needed):
        copied[p] = port(p.name, p.meta["val"])
    for n in loop.body.nodes:
        if n.op == "call_function" and n in needed:
            copied[n] = graph.node_copy(n, lambda m: copied[m])

    velocity = copied[euler.velocity]
    change = op(_ATEN.mul.Tensor, velocity, now)
    if before is not None and past is not None:
        change = op(_ATEN.add.Tensor, change, op(_ATEN.mul.Tensor, before, past))
    following = op(_ATEN.add.Tensor, sample, change)
    graph.output((following, velocity) if two else (following,))
    return graph, {kind for p, kind in ports.items() if p in needed}
