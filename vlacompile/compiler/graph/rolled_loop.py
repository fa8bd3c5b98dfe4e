"""A loop as one node of the graph: a body that runs K times over carried values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node

from vlacompile.compiler.graph.loop_end import LoopEnd
from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.graph.program import Program
from vlart.bundle.plan.plan import AS_WRITTEN, Sampling

_ATEN = torch.ops.aten
# Ops whose second operand may be a number or a 0-d tensor: a number that differs per iteration
# (a step size) becomes a table.
SCALAR_OPS = frozenset({_ATEN.mul.Tensor, _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.div.Tensor})
_JOINS = frozenset({_ATEN.cat.default, _ATEN.stack.default})
FUSED = "fused"  # key in the meta of the last values of a fused loop: its Sampling


def size_of(program: Program) -> int:
    """Nodes and what they read, times the rows of the widest concatenation: what a pass may take its time over. Of a
    loop every iteration counts."""
    size, rows = 0, 1
    for node in program.graph.nodes:
        size += 1 + len(node.all_input_nodes)
        if isinstance(node.target, RolledLoop):
            size += node.target.iterations * len(node.target.body.nodes)
        elif node.target in _JOINS:
            rows = max(rows, len(node.args[0]))
    return size * rows


@dataclass(frozen=True)
class RolledLoop:
    """The target of a loop node; called with (carried, tables, invariants) it runs all iterations.

    body: placeholders are the carried values, one row of each table, then the invariants; outputs
        are the next carried values.
    end: of a loop that may run fewer iterations than that.
    The result is the tuple of carried values after the last iteration.
    """

    name: str
    body: Graph
    iterations: int
    carried: int
    tables: int
    sampling: Sampling | None = None  # None: as written, one evaluation after the other
    end: LoopEnd | None = None

    def how(self) -> Sampling:
        return self.sampling or Sampling("steps", self.iterations, AS_WRITTEN, self.iterations)

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def flops(self) -> int:
        """Of all iterations, as if it had no end before."""
        return self.iterations * sum(flops(n) for n in self.body.nodes)

    def placeholders(self) -> list[Node]:
        return [n for n in self.body.nodes if n.op == "placeholder"]

    def next_values(self) -> tuple[Node, ...]:
        return tuple(self.body.output_node().args[0])

    @cached_property
    def _module(self) -> GraphModule:
        return GraphModule(torch.nn.Module(), self.body)

    def __call__(self, carried, tables, invariants):
        for k in range(self.iterations):
            carried = self._module(*carried, *(t[k] for t in tables), *invariants)
            if self.end is not None and self._is_over(carried[self.end.carried]):
                break
        return tuple(carried)

    @staticmethod
    def _is_over(flag: torch.Tensor) -> bool:
        """Where only types are computed, no flag is known and all iterations have the same types."""
        return not flag.is_meta and not isinstance(flag, FakeTensor) and bool(flag)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other) -> bool:
        return self is other
