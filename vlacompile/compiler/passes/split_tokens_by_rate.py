"""Tokens that cannot see what changes more often are computed when they change themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.shortened_loops import times
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.attention_pattern import attentions_of
from vlacompile.compiler.passes.rules.constant_reads import reads_rows
from vlacompile.compiler.passes.rules.parts import Value, nodes_of, roots_of
from vlacompile.compiler.passes.rules.regions import Regions
from vlacompile.compiler.passes.rules.split_rows import SplitRows, split_rows
from vlacompile.compiler.passes.rules.token_runs import CONSTANT, joined_runs, weights_of
from vlart.vocabulary import UPDATES

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class SplitTokensByRate(GraphPass):
    """A row of tokens that change at different rates, behind an attention whose mask hides some from others, is taken
    apart where a part does not change as often as all of them: the keys and values of an instruction that comes first
    are then kept while pictures change, and a prefix that cannot see the sample of a denoising loop leaves the loop,
    whether the model's code keeps a cache or not. Exact: a key of which no query of a part may see anything has the
    probability 0.

    A part of its own reads the weights once more, unless it is a constant. It fires where what is saved uses every
    weight `least_uses` times, and of a constant `least_uses_of_constants` times, in all iterations of a loop, traced or
    not; a part that saves less stays with its neighbour.

    Before:
        %task = source "task" f32[1,2,4]
        %image = source "image" f32[1,3,4]
        %w = weight "w" f32[4,4]
        %mask = weight "mask" bool[5,5]
        %cat = cat([%task, %image], 1) f32[1,5,4]
        %linear = linear(%cat, %w) f32[1,5,4]
        %scaled_dot_product_attention = scaled_dot_product_attention(%linear, %cat, %cat, %mask) f32[1,5,4]
        return action=%scaled_dot_product_attention
    After:
        %task = source "task" f32[1,2,4]
        %image = source "image" f32[1,3,4]
        %w = weight "w" f32[4,4]
        %mask = weight "mask" bool[5,5]
        %linear = linear(%task, %w) f32[1,2,4]
        %linear_1 = linear(%image, %w) f32[1,3,4]
        %slice_1 = slice.Tensor(%mask, 0, 0, 2) bool[2,5]
        %slice_2 = slice.Tensor(%slice_1, 1, 0, 2) bool[2,2]
        %scaled_dot_product_attention = scaled_dot_product_attention(%linear, %task, %task, %slice_2) f32[1,2,4]
        %slice_3 = slice.Tensor(%mask, 0, 2, 5) bool[3,5]
        %cat = cat([%task, %image], 1) f32[1,5,4]
        %scaled_dot_product_attention_1 = scaled_dot_product_attention(%linear_1, %cat, %cat, %slice_3) f32[1,3,4]
        %cat_1 = cat([%scaled_dot_product_attention, %scaled_dot_product_attention_1], 1) f32[1,5,4]
        return action=%cat_1
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    least_uses: float = 16.0
    least_uses_of_constants: float = 4.0

    def run(self, program: Program) -> PassResult:
        attentions = attentions_of(program)
        roots = self._candidates(program) if any(a.mask is not None for a in attentions.values()) else {}
        if not roots:
            return PassResult(program, False)
        tried = split_rows(program, roots, attentions=attentions)
        fewer = joined_runs(program, tried.values, roots, _rates(program, program),
                            _rates(program, _copy(program, tried)), self.least_uses, self.least_uses_of_constants)
        if fewer != roots:
            roots = {n: runs for n, runs in fewer.items() if len(runs) > 1}
            if not roots:
                return PassResult(program, False)
            tried = split_rows(program, roots, attentions=attentions)
        saved = self._saved(program, tried)
        inner = {n: a.inner for a in attentions.values() for n in (a.out,)}
        gained = {n for n, share in saved.items() if share}
        constant = {n for n, rate in _rates(program, _copy(program, tried)).items() if rate == CONSTANT}
        chosen = self._worthwhile(program, tried.values, saved, roots, constant)
        if not chosen:
            return PassResult(program, False)
        allowed = self._behind(program, {n for n in gained if roots_of(tried.values[n]) & chosen} | {
            n for n in roots if n.name in chosen}, tried.values)
        allowed |= {i for n in allowed & set(inner) for i in inner[n]}
        kept = {n: runs for n, runs in roots.items() if n.name in chosen}
        split = split_rows(program, kept, allowed, attentions)
        result = split.finish()
        work = sum(share for n, share in saved.items() if roots_of(tried.values[n]) & chosen)
        return PassResult(result, True, (f"{len(kept)} rows of tokens: {work / 1e6:.3g} MFLOP change less often",))

    @staticmethod
    def _candidates(program: Program) -> dict[Node, list[int]]:
        """{concatenation along a dimension between the first and the last, of parts that change at different times:
        how many neighbours change together}"""
        rate, found = _rates(program, program), {}
        for node in program.graph.nodes:
            if node.op != "call_function" or node.target is not _ATEN.cat.default or len(node.args[0]) < 2:
                continue
            rank = node.meta["val"].dim()
            axis = (node.args[1] if len(node.args) > 1 else 0) % rank
            floating = all(p.meta["val"].is_floating_point() for p in node.args[0])
            if not 0 < axis < rank - 1 or not floating:
                continue
            runs = [len(list(run)) for _, run in groupby(rate[p] for p in node.args[0])]
            if len(runs) > 1:
                found[node] = runs
        return found

    @staticmethod
    def _saved(program: Program, tried: SplitRows) -> dict[Node, int]:
        """{value in parts: FLOPs of those of its parts that change less often than the whole did, in all iterations of
        a loop}"""
        before, after = _rates(program, program), _rates(program, _copy(program, tried))
        return {node: times(program, node) * sum(max(flops(p), 1) for p in nodes_of(value) if after[p] < before[node])
                for node, value in tried.values.items()}

    def _worthwhile(self, program: Program, values: Mapping[Node, Value], saved: Mapping[Node, int],
                    roots: Mapping[Node, list[int]], constant: set[Node]) -> frozenset[str]:
        """Roots whose saved work uses the weights that it reads often enough, together with that of other roots over
        the same weights: the iterations of one loop."""
        work: dict[str, int] = defaultdict(int)
        read: dict[str, set[str]] = defaultdict(set)
        again: set[str] = set()  # what is read for one part more, since the part is no constant
        for node, share in saved.items():
            weights = weights_of(program, node)
            if not share or not flops(node) or not weights:
                continue
            for w in weights:
                work[w] += share
            for root in roots_of(values[node]):
                read[root].update(weights)
            if share > times(program, node) * sum(max(flops(n), 1) for n in nodes_of(values[node]) if n in constant):
                again |= roots_of(values[node])
        size = {n.target: n.meta["val"].numel() for n in program.graph.nodes if n.op == "get_attr"}
        named = {n.name for n in roots}
        least = {r: self.least_uses if r in again else self.least_uses_of_constants for r in read}
        return frozenset(r for r, ws in read.items() if r in named
                         and sum(work[w] for w in ws) >= 2 * least[r] * sum(size[w] for w in ws))

    @staticmethod
    def _behind(program: Program, gained: set[Node], values: Mapping[Node, Value]) -> set[Node]:
        """What leads to a gain: an op in parts of which nothing behind it depends on less is done whole. What reads
        some of the parts alone is behind them, and a row of tokens begins anew with an operand that is one part: so
        the last iteration of a loop is split like those that others follow."""
        count = {n: sum(1 for _ in nodes_of(value)) for n, value in values.items()}
        ahead: set[Node] = set()
        for node in reversed(program.graph.nodes):
            if node in values and (node in gained or any(
                    u in ahead and (u.target is not _ATEN.cat.default or count[node] > 1) for u in node.users)):
                ahead.add(node)
        return ahead | {n for n in values if reads_rows(n.target) and n.args[0] in ahead
                        and count[n] < count[n.args[0]]}


def _copy(program: Program, tried: SplitRows) -> Program:
    return replace(program, graph=tried.graph)


def _rates(program: Program, of: Program) -> dict[Node, int]:
    """How often a value of `of` changes: the most frequent update class that it depends on."""
    rank = {n: UPDATES[s.update] for n, s in program.sources.items()}
    return {n: max((rank.get(s, UPDATES["observation"]) for s in deps), default=CONSTANT)
            for n, deps in Regions(of).refined().items()}
