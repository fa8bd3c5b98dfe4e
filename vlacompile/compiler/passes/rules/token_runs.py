"""Which neighbours in a row of tokens stay together when the row is taken apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import groupby

from torch.fx import Node

from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.graph.shortened_loops import times
from vlacompile.compiler.passes.rules.parts import Value, nodes_of, roots_of

CONSTANT = -1  # rate of what no source reaches


def weights_of(program: Program, node: Node) -> list[str]:
    return [i.target for i in node.all_input_nodes if i.op == "get_attr" and i.target in program.parameters]


def joined_runs(program: Program, values: Mapping[Node, Value], roots: Mapping[Node, list[int]],
                before: Mapping[Node, int], after: Mapping[Node, int], least_uses: float, of_constants: float) \
                -> dict[Node, list[int]]:
    """`roots`, {concatenation: how many neighbours stay together}, with parts joined that save too little by being on
    their own. values: {node: its value when all of them are apart}. before, after: how often a value changes, of the
    program and of those parts."""
    runs = {n.name: r for n, r in roots.items()}
    size = {n.target: n.meta["val"].numel() for n in program.graph.nodes if n.op == "get_attr"}
    work: dict[tuple[str, int], int] = defaultdict(int)  # by weight and part, over all iterations of a loop
    read: dict[str, set[str]] = defaultdict(set)
    often: dict[tuple[str, int], int] = defaultdict(lambda: CONSTANT)
    left: set[str] = set()  # rows that are read together with others
    for node, value, gains in _gaining(program, values, before, after):
        names = roots_of(value)
        if len(names) != 1 or len(value.parts) != len(runs.get(next(iter(names)), ())):
            left |= names
            continue
        root, weights = next(iter(names)), weights_of(program, node)
        read[root].update(weights)
        for i, part in enumerate(value.parts):
            often[root, i] = max(often[root, i], *(after[n] for n in nodes_of(part)))
            for w in weights:
                work[w, i] += gains.get(i, 0)

    def pays(root: str, i: int) -> bool:
        saved = sum(work[w, i] for w in read[root])
        uses = of_constants if often[root, i] == CONSTANT else least_uses
        return saved > 0 and saved >= 2 * uses * sum(size[w] for w in read[root])

    return {n: r if n.name in left or n.name not in read else _regrouped(r, [pays(n.name, i) for i in range(len(r))])
            for n, r in roots.items()}


def _gaining(program: Program, values: Mapping[Node, Value], before: Mapping[Node, int], after: Mapping[Node, int]) \
        -> Iterator[tuple[Node, Value, dict[int, int]]]:
    """(node that reads weights, its value, {part: FLOPs of it that are done less often})"""
    for node, value in values.items():
        if not flops(node) or not weights_of(program, node):
            continue
        gains = {i: times(program, node) * sum(max(flops(n), 1) for n in nodes_of(part) if after[n] < before[node])
                 for i, part in enumerate(value.parts)}
        gains = {i: work for i, work in gains.items() if work}
        if gains:
            yield node, value, gains


def _regrouped(runs: list[int], alone: list[bool]) -> list[int]:
    """Neighbours that are not alone become one."""
    out: list[int] = []
    for own, group in groupby(zip(runs, alone, strict=True), key=lambda pair: pair[1]):
        counts = [count for count, _ in group]
        out += counts if own else [sum(counts)]
    return out
