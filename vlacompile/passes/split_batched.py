"""Gives every camera and every frame of a batch its own encoder."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch.fx import Node

from vlacompile.capture.ops import flops
from vlacompile.capture.program import Program, ProgramEditor
from vlacompile.passes.result import PassResult
from vlacompile.passes.row_rules import (Elements, Op, Parts, Value, axes_of, parts_along, picks_of, roots_of, rule_of,
                                           shape_of, values_in, with_roots)
from vlacompile.staging.dependency import dependencies

_ATEN = torch.ops.aten
_JOINS = frozenset({_ATEN.cat.default, _ATEN.stack.default})


class _Splitter:
    """Copies a program; the ops in `allowed` act on the parts of the concatenations `roots`. {node: value} is kept in
    `values` for what is in parts."""

    def __init__(self, program: Program, roots: dict[Node, list[int]], allowed: set[Node] | None = None):
        self.editor, self.roots = ProgramEditor(program), roots
        self.values: dict[Node, Parts | Elements] = {}
        self._whole: dict[int, tuple[Parts, Node]] = {}
        self._fixed: set[Node] = set()  # new nodes that depend on no source
        deps = dependencies(program)
        for node in program.graph.nodes:
            if node.op == "output":
                continue
            value = self._in_parts(node) if allowed is None or node in allowed else None
            if value is not None:
                self.values[node] = value
                continue
            for i in node.all_input_nodes:
                self._map_whole(i)
            new = self.editor.copy(node)
            if not deps[node]:
                self._fixed.add(new)
        for node in program.output_nodes():
            self._map_whole(node)

    def _map_whole(self, node: Node) -> None:
        if node in self.values:
            self.editor.replace(node, self.whole(self.values[node]))

    def whole(self, value: Value) -> Node:
        if isinstance(value, Node):
            return value
        if id(value) not in self._whole:
            parts = [self.whole(p) for p in value.parts]
            joined = parts[0] if len(parts) == 1 else self.editor.emit(_ATEN.cat.default, (parts, value.axis))
            self._whole[id(value)] = value, joined
        return self._whole[id(value)][1]

    def _in_parts(self, node: Node) -> Parts | Elements | None:
        if node.op != "call_function":
            return None

        def value(arg):
            if isinstance(arg, Node):
                return self.values[arg] if arg in self.values else self.editor.map(arg)
            return type(arg)(map(value, arg)) if isinstance(arg, (list, tuple)) else arg

        kwargs = {k: self._read_whole(v) for k, v in node.kwargs.items()}
        op = Op(node.target, tuple(map(value, node.args)), kwargs, node)
        if node in self.roots:
            return self._root(op, self.roots[node])
        if node.target is operator.getitem and isinstance(op.args[0], Elements):
            return with_roots(op.args[0].values[op.args[1]], op.args[0].roots)
        if not any(isinstance(v, Parts) for v in values_in(op.args)):
            return None
        return self._divided(op)

    def _read_whole(self, arg):
        if isinstance(arg, Node):
            self._map_whole(arg)
        return self.editor.map_args(arg)

    def _root(self, op: Op, runs: list[int]) -> Parts:
        """The concatenation itself; neighbours that depend on the same sources stay together."""
        rank = op.like.meta["val"].dim()
        axis, parts, begin = (op.args[1] if len(op.args) > 1 else 0) % rank, [], 0
        for count in runs:
            group = list(op.args[0][begin: begin + count])
            begin += count
            single = count == 1 and op.target is _ATEN.cat.default
            parts.append(group[0] if single else self._compute(
                Op(_ATEN.unsqueeze.default, (group[0], axis), {}, op.like) if count == 1 else
                Op(op.target, (group, axis), {}, op.like)))
        return Parts(axis, tuple(parts), frozenset({op.like.name}))

    def _compute(self, op: Op) -> Value:
        divided = self._divided(op) if any(isinstance(v, Parts) for v in values_in(op.args)) else None
        if divided is not None:
            return divided

        def whole(arg):
            if isinstance(arg, (Node, Parts)):
                return self.whole(arg)
            return [whole(a) for a in arg] if isinstance(arg, (list, tuple)) else arg

        target = _ATEN.reshape.default if op.packet in (_ATEN.view, _ATEN._unsafe_view) else op.target
        return self.editor.emit(target, tuple(map(whole, op.args)), dict(op.kwargs), like=op.like)

    def _divided(self, op: Op) -> Parts | Elements | None:
        """The op on each part, along the outermost axis where that is possible."""
        first = next(v for v in values_in(op.args) if isinstance(v, Parts))
        for axis in axes_of(first):
            rows = parts_along(first, axis)
            picked = None if rows is None else self._picked(op, axis, rows)
            if picked is not None:
                return picked
            rule = None if rows is None else rule_of(op, axis)
            if rule is None:
                continue
            single = op.target is not operator.getitem and op.packet not in (_ATEN.cat, _ATEN.stack)
            operands = op.args if single or op.target is operator.getitem else op.args[0]
            sizes = None if op.target is operator.getitem else [shape_of(r)[axis] for r in rows]
            columns = {i: rows if operands[i] is first else self._like(operands[i], a, sizes)
                       for i, a in rule.operands.items()}
            if any(c is None for c in columns.values()):
                continue
            roots = first.roots if first.axis == axis else roots_of(first)
            done = [self._compute(Op(op.target, rule.args({i: c[k] for i, c in columns.items()}, sizes and sizes[k]),
                                     op.kwargs, op.like)) for k in range(len(rows))]
            return Parts(rule.result, tuple(done), roots)
        return None

    def _picked(self, op: Op, axis: int, rows: list[Value]) -> Parts | Elements | None:
        """Rows that are whole parts are these parts."""
        if op.target is operator.getitem or not isinstance(op.args[0], Parts):
            return None
        picks = picks_of(op, axis, [shape_of(r)[axis] for r in rows])
        if picks is None:
            return None
        taken = tuple(self._compute(Op(_ATEN.select.int, (rows[k], axis, 0), {}, op.like)) for k in picks)
        roots = roots_of(op.args[0])
        return Elements(taken, roots) if op.packet is _ATEN.unbind else with_roots(taken[0], roots)

    def _like(self, value: Value, axis: int, sizes: list[int]) -> list[Value] | None:
        """The parts of another operand, of these sizes; constants are cut."""
        if isinstance(value, Node):
            if value not in self._fixed:
                return None
            ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
            return [self.editor.emit(_ATEN.slice.Tensor, (value, axis, e - s, e))
                    for s, e in zip(sizes, ends, strict=True)]
        rows = parts_along(value, axis)
        return rows if rows is not None and [shape_of(r)[axis] for r in rows] == sizes else None


@dataclass
class _Region:
    """What is behind one concatenation: work on rows of dimension 0, and the weights that it reads."""

    parts: int
    work: int = 0
    weights: dict[str, int] = field(default_factory=dict)

    @property
    def uses(self) -> float:
        """How often one part uses a weight; multiply-adds."""
        return self.work / (2 * self.parts * max(1, sum(self.weights.values())))


@dataclass(frozen=True)
class SplitBatched:
    """encoder(stack([a, b])) becomes stack([encoder(a), encoder(b)]) when a and b depend on different sources: every
    camera of a batch has its own stage and rate, and an earlier frame of a history is seen to be what the newest one
    was. Exact: every op on the way acts on each row alone. It fires for an encoder on rows of dimension 0 each of which
    uses every weight `least_uses` times on average; where the weights are what costs (a Linear on one row per part), or
    where all parts depend on the same sources or all change per step of a loop, the batch stays.

    Before:
        %a = source "a" f32[1,3,4,4]
        %b = source "b" f32[1,3,4,4]
        %w = weight "w" f32[2,3,1,1]
        %cat = cat([%a, %b]) f32[2,3,4,4]
        %conv2d = conv2d(%cat, %w) f32[2,2,4,4]
        return action=%conv2d
    After:
        %a = source "a" f32[1,3,4,4]
        %b = source "b" f32[1,3,4,4]
        %w = weight "w" f32[2,3,1,1]
        %conv2d = conv2d(%a, %w) f32[1,2,4,4]
        %conv2d_1 = conv2d(%b, %w) f32[1,2,4,4]
        %cat = cat([%conv2d, %conv2d_1], 0) f32[2,2,4,4]
        return action=%cat
    """

    least_uses: float = 4.0

    def run(self, program: Program) -> PassResult:
        candidates, notes = self._candidates(program), []
        regions = {n.name: _Region(len(runs)) for n, runs in candidates.items()}
        if not regions:
            return PassResult(program, False)
        tried = _Splitter(program, candidates).values
        self._measure(program, tried, regions)
        good = {name for name, r in regions.items() if r.work and r.uses >= self.least_uses}
        notes += [f"{name}: kept, a part uses a weight {r.uses:.2g} times" for name, r in regions.items()
                  if r.work and name not in good]
        allowed = self._around_work(program, {n for n, v in tried.items() if roots_of(v) & good})
        chosen = {n: runs for n, runs in candidates.items() if n.name in good and n in allowed}
        if not chosen:
            return PassResult(program, False, tuple(notes))
        split = _Splitter(program, chosen, allowed)
        notes += [f"{n.name}: {sum(n.name in roots_of(v) for v in split.values.values()) - 1} ops on each of "
                  f"{len(runs)} parts" for n, runs in chosen.items()]
        return PassResult(split.editor.finish(), True, tuple(notes))

    @staticmethod
    def _candidates(program: Program) -> dict[Node, list[int]]:
        """{concatenation of equal parts that change at different times: how many neighbours change together}"""
        deps = dependencies(program)
        looped = {n for n, s in program.sources.items() if s.update == "step"}
        found = {}
        for node in program.graph.nodes:
            if node.op != "call_function" or node.target not in _JOINS or len(node.args[0]) < 2:
                continue
            types = {(p.meta["val"].dtype, tuple(p.meta["val"].shape)) for p in node.args[0]}
            if len(types) > 1:
                continue
            rates = [looped if deps[p] & looped else deps[p] for p in node.args[0]]
            runs = [len(list(run)) for _, run in groupby(rates)]
            if len(runs) > 1:
                found[node] = runs
        return found

    @staticmethod
    def _measure(program: Program, tried: dict[Node, Parts | Elements], regions: dict[str, _Region]) -> None:
        for node, value in tried.items():
            for root in roots_of(value) if flops(node) and 0 in axes_of(value) else ():
                regions[root].work += flops(node)
                regions[root].weights |= {i.target: i.meta["val"].numel() for i in node.all_input_nodes
                                          if i.op == "get_attr"}

    @staticmethod
    def _around_work(program: Program, split: set[Node]) -> set[Node]:
        """The ops before or behind an op with work: an element-wise op alone is not worth two."""
        ahead, behind = defaultdict(bool), defaultdict(bool)
        for node in reversed(program.graph.nodes):
            ahead[node] = node in split and (flops(node) > 0 or any(ahead[u] for u in node.users))
        for node in program.graph.nodes:
            behind[node] = node in split and (flops(node) > 0 or any(behind[i] for i in node.all_input_nodes))
        around = {n for n in split if ahead[n] or behind[n]}
        return around | {n for n in split if n.target is operator.getitem and n.args[0] in around}
