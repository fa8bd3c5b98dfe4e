"""Writes what is done to integers and booleans with ops that engines have for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.loop_end import is_variable
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.boolean_ops import BOOLEANS
from vlacompile.compiler.passes.rules.inline_graph import inlined, trace
from vlacompile.compiler.passes.rules.integer_ops import INTEGERS


@dataclass(frozen=True)
class DecomposeIntegers(GraphPass):
    """An op of integers or booleans for which engines have no kernel becomes what it does, in ops that they have: a
    comparison of booleans is logic, `x[mask] = c` is a choice by the mask, a sort of booleans is one of numbers, `//`
    rounds down from a division that rounds towards zero. What no source reaches is left to PyTorch.

    Before:
        %x = source "x" bool[1,4]
        %y = source "y" bool[1,4]
        %eq = eq.Tensor(%x, %y) bool[1,4]
        return action=%eq
    After:
        %x = source "x" bool[1,4]
        %y = source "y" bool[1,4]
        %logical_xor = logical_xor(%x, %y) bool[1,4]
        %logical_not = logical_not(%logical_xor) bool[1,4]
        return action=%logical_not
    """

    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    def run(self, program: Program) -> PassResult:
        live: set[Node] = set()

        def choose(node: Node) -> Callable[[], Graph | None] | None:
            if is_variable(node, live):
                live.add(node)
            function = _function(node) if node in live else None
            return None if function is None else partial(trace, node, function, {})

        made, count = inlined(program, choose)
        return PassResult(made, bool(count), tuple(
            f"wrote {n} of {name} with ops of engines" for name, n in sorted(count.items())))


def _function(node: Node) -> Callable | None:
    """What to write in the place of `node`; None: it stays."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    rules = [t[p] for t in (BOOLEANS, INTEGERS) if (p := node.target.overloadpacket) in t]
    return next((f for rule in rules if (f := rule(node)) is not None), None)
