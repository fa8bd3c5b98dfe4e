"""Element-wise ops of one operand between a concatenation and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.delay import HISTORY, is_delay
from vlacompile.compiler.graph.dependency import dependencies
from vlacompile.compiler.graph.ops import is_pointwise, is_random
from vlacompile.compiler.graph.program import Program, ProgramEditor
from vlacompile.compiler.graph.work_bound import spend
from vlart.vocabulary import UPDATES

_LONGEST = 16  # ops that are looked through: all that is behind them does them again
_ATEN = torch.ops.aten
_FILLS = frozenset({_ATEN.zeros_like.default, _ATEN.ones_like.default, _ATEN.new_zeros.default, _ATEN.new_ones.default})
Rate = Callable[[Node], int]


def rates_of(program: Program, fills: bool = True) -> Rate:
    """How often a value changes: the most frequent update class that it depends on; -1 for constants. fills: whether
    what takes its shape alone from a value changes with it."""
    deps = dependencies(program) if fills else _contents(program)
    rates = {n: UPDATES[s.update] for n, s in program.sources.items()} | {HISTORY: UPDATES["observation"]}
    return lambda node: max((rates[s] for s in deps[node]), default=-1)


def _contents(program: Program) -> dict[Node, frozenset[str]]:
    deps = dict(dependencies(program))
    for node in program.graph.nodes:
        if node.target in _FILLS:
            deps[node] = frozenset()
        elif node.op == "call_function" and not is_delay(node):
            deps[node] = frozenset().union(*(deps[i] for i in node.all_input_nodes))
    return deps


def behind(node: Node) -> tuple[Node, list[Node]]:
    """(the value that `node` is made from, the element-wise ops of one operand between, last first)."""
    through: list[Node] = []
    while (len(through) < _LONGEST and node.op == "call_function" and is_pointwise(node) and not is_random(node)
           and node.all_input_nodes == [node.args[0]]):
        spend()
        through.append(node)
        node = node.args[0]
    return node, through


def groups_of(node: Node, axis: int, rate: Rate) -> list[list[Node]] | None:
    """Neighbouring parts of one rate together, of a concatenation along this axis (of its rank, if negative) behind
    `node`; None where there is nothing to split."""
    cat, _ = behind(node)
    if cat.op != "call_function" or cat.target is not _ATEN.cat.default:
        return None
    rank = cat.meta["val"].dim()
    if any(p.meta["val"].dtype != cat.meta["val"].dtype for p in cat.args[0]):  # cat converts, its reader would not
        return None
    if (cat.args[1] if len(cat.args) > 1 else 0) % rank != axis % rank:
        return None
    groups = [list(parts) for _, parts in groupby(cat.args[0], key=rate)]
    return groups if len(groups) > 1 else None


def part_of(editor: ProgramEditor, node: Node, parts: list[Node], axis: int) -> Node:
    """What `node` would be if the concatenation behind it were of these parts alone."""
    x = editor.map(parts[0]) if len(parts) == 1 else editor.emit(
        _ATEN.cat.default, ([editor.map(p) for p in parts], axis))
    for op in reversed(behind(node)[1]):
        of = partial(_with_operand, x)  # `v * v` reads its one operand twice
        x = editor.emit(op.target, map_arg(op.args, of), map_arg(dict(op.kwargs), of), like=op)
    return x


def _with_operand(x: Node, operand: Node) -> Node:
    return x
