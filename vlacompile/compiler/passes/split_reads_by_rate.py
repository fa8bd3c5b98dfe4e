"""What reads one camera of several depends on this camera alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch.fx import Node

from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.constant_reads import reads_rows
from vlacompile.compiler.passes.rules.parts import Parts, nodes_of
from vlacompile.compiler.passes.rules.split_rows import SplitRows, split_rows

_ATEN = torch.ops.aten
_JOINS = frozenset({_ATEN.cat.default, _ATEN.stack.default})
Rates = Mapping[Node, frozenset[str]]


@dataclass(frozen=True)
class SplitReadsByRate(GraphPass):
    """slice(f(cat([a, b]))) that reads rows of f(a) becomes f(a) when a and b depend on different sources, through
    whatever acts on rows alone: cameras that are joined, scaled, viewed and taken apart again have stages of their own.
    Exact. What reads weights on the way is left to `split_batch_by_rate`, since it would read them once per part.

    Before:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %cat = cat([%a, %b], 1) f32[1,5]
        %tanh = tanh(%cat) f32[1,5]
        %slice_1 = slice.Tensor(%tanh, 1, 0, 2) f32[1,2]
        %relu = relu(%slice_1) f32[1,2]
        return action=%relu
    After:
        %a = source "a" f32[1,2]
        %b = source "b" f32[1,3]
        %tanh = tanh(%a) f32[1,2]
        %relu = relu(%tanh) f32[1,2]
        return action=%relu
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        rates = _rates(program, program)
        roots = _candidates(program, rates)
        if not roots:
            return PassResult(program, False)
        tried = split_rows(program, roots)
        reached = _reached(program, tried.values, roots)
        allowed = _before(program, reached, _gains(program, tried, rates) & reached)
        kept = {n: runs for n, runs in roots.items() if n in allowed}
        if not kept:
            return PassResult(program, False)
        split = split_rows(program, kept, allowed)
        gained = _gains(program, split, rates)
        if not gained:
            return PassResult(program, False)
        return PassResult(split.finish(), True, (f"{len(gained)} reads depend on what they read alone",))


def _rates(program: Program, of: Program) -> Rates:
    """{value: the sources that it depends on}; of what a loop changes, its own alone: all of that changes at once."""
    looped = frozenset(n for n, s in program.sources.items() if s.update == "step")
    return {n: found & looped or found for n, found in dependencies(of).items()}


def _candidates(program: Program, rates: Rates) -> dict[Node, list[int]]:
    """{concatenation of parts that change at different times, behind which something is read: how many neighbours
    change together}"""
    behind: set[Node] = set()  # values that a read is made of, by ops that have no weights
    for node in reversed(program.graph.nodes):
        if reads_rows(node.target) or any(u in behind and not _reads_weights(u) for u in node.users):
            behind.add(node)
    found = {}
    for node in program.graph.nodes:
        if node in behind and node.op == "call_function" and node.target in _JOINS:
            runs = [len(list(run)) for _, run in groupby(rates[p] for p in node.args[0])]
            if len(runs) > 1 and all(p.meta["val"].numel() for p in node.args[0]):
                found[node] = runs
    return found


def _reads_weights(node: Node) -> bool:
    return flops(node) > 0 and any(i.op == "get_attr" for i in node.all_input_nodes)


def _reached(program: Program, values: Mapping[Node, Parts], roots: Mapping[Node, list[int]]) -> set[Node]:
    """What can be in parts where what reads weights is not."""
    reached: set[Node] = set()
    for node in program.graph.nodes:
        if node in values and not _reads_weights(node) and (node in roots or all(
                i in reached for i in node.all_input_nodes if i in values)):
            reached.add(node)
    return reached


def _gains(program: Program, split: SplitRows, rates: Rates) -> set[Node]:
    """Reads that depend on less than before."""
    after = _rates(program, replace(program, graph=split.graph))
    return {node for node, value in split.values.items() if reads_rows(node.target)
            and frozenset().union(*(after[n] for n in nodes_of(value))) < rates[node]}


def _before(program: Program, reached: set[Node], gains: set[Node]) -> set[Node]:
    """The reads, and what leads to them."""
    ahead: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node in reached and (node in gains or any(u in ahead for u in node.users)):
            ahead.add(node)
    return ahead
