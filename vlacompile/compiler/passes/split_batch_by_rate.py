"""Gives every camera and every frame of a batch its own encoder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.parts import Parts, axes_of, roots_of
from vlacompile.compiler.passes.rules.split_rows import split_rows

_ATEN = torch.ops.aten
_JOINS = frozenset({_ATEN.cat.default, _ATEN.stack.default})


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
class SplitBatchByRate(GraphPass):
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

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    least_uses: float = 4.0

    def run(self, program: Program) -> PassResult:
        candidates, notes = self._candidates(program), []
        regions = {n.name: _Region(len(runs)) for n, runs in candidates.items()}
        if not regions:
            return PassResult(program, False)
        tried = split_rows(program, candidates).values
        self._measure(program, tried, regions)
        good = {name for name, r in regions.items() if r.work and r.uses >= self.least_uses}
        notes += [f"{name}: kept, a part uses a weight {r.uses:.2g} times" for name, r in regions.items()
                  if r.work and name not in good]
        allowed = self._around_work(program, {n for n, v in tried.items() if roots_of(v) & good})
        chosen = {n: runs for n, runs in candidates.items() if n.name in good and n in allowed}
        if not chosen:
            return PassResult(program, False, tuple(notes))
        split = split_rows(program, chosen, allowed)
        notes += [f"{n.name}: {sum(n.name in roots_of(v) for v in split.values.values()) - 1} ops on each of "
                  f"{len(runs)} parts" for n, runs in chosen.items()]
        return PassResult(split.finish(), True, tuple(notes))

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
    def _measure(program: Program, tried: dict[Node, Parts], regions: dict[str, _Region]) -> None:
        for node, value in tried.items():
            work = flops(node) if 0 in axes_of(value) else 0
            if not work:
                continue
            weights = {i.target: i.meta["val"].numel() for i in node.all_input_nodes if i.op == "get_attr"}
            for root in roots_of(value):
                regions[root].work += work
                regions[root].weights |= weights

    @staticmethod
    def _around_work(program: Program, split: set[Node]) -> set[Node]:
        """The ops before or behind an op with work: an element-wise op alone is not worth two."""
        ahead, behind = defaultdict(bool), defaultdict(bool)
        for node in reversed(program.graph.nodes):
            ahead[node] = node in split and (flops(node) > 0 or any(ahead[u] for u in node.users))
        for node in program.graph.nodes:
            behind[node] = node in split and (flops(node) > 0 or any(behind[i] for i in node.all_input_nodes))
        return {n for n in split if ahead[n] or behind[n]}
