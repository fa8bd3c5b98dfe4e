"""Attributes the error of a stage in fp16 to the weights and results whose rounding causes it.

To first order the outputs move by the sum of J e over all rounded tensors, where e is the rounding error and J the
Jacobian of the outputs. For random v with unit variance, the mean of (v J e)^2 is |J e|^2 (Hutchinson 1990), and one
backward pass gives v J for all nodes at once. Ops without a derivative are straight-through (Bengio et al. 2013). If no
gradient reaches a node, as before an argmax, its rounding errors are applied and the outputs compared. Must not know
what stays FP32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg

from vlacompile.compiler.precision.fp16.attention_masks import saturated
from vlacompile.compiler.precision.fp16.op_kinds import is_f32, known, moves, packet, tensors
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph

PROBES = 4
SEEN = 4  # observations, and iterations of a loop, that are evaluated


@dataclass
class ErrorShare:
    """Estimates of the squared relative error of a stage's outputs. weights: from rounding the constants that a node
    reads; result: from storing its result in fp16."""

    weights: float = 0.0
    result: float = 0.0


def attribute_error(staged: Staged, stage: StageGraph, observations: Sequence[Mapping[str, torch.Tensor]],
              masked: Collection[str]) -> dict[str, ErrorShare]:
    """{node: ErrorShare}, summed over a few observations and iterations, for every f32 input and every f32 node that
    computes something."""
    found: dict[str, ErrorShare] = {}
    draw = torch.Generator().manual_seed(0)
    for args in _arguments(staged, stage, observations[:SEEN]):
        tape = _Tape(stage, masked)
        with torch.enable_grad():
            outputs = [o for o in tape.run(*args) if o.dtype == torch.float32 and o.requires_grad]
        zeros = [z for row in tape.rows for z in row.zeros]
        once = {row.node: ErrorShare() for row in tape.rows}
        for _ in range(PROBES if outputs else 0):
            v = [torch.randn(o.shape, generator=draw) / (o.detach().norm() + 1e-30) for o in outputs]
            slopes = iter(torch.autograd.grad(outputs, zeros, v, retain_graph=True, allow_unused=True))
            for row in tape.rows:
                mine = [next(slopes) for _ in row.zeros]
                once[row.node].weights += _moved(mine, row.weights) ** 2 / PROBES
                once[row.node].result += _moved(mine, row.result) ** 2 / PROBES
        for row in tape.rows:
            to, own = found.setdefault(row.node, ErrorShare()), once[row.node]
            to.weights += own.weights or tape.moved_by(args, row.node, row.weights)
            to.result += own.result or tape.moved_by(args, row.node, row.result)
    return found


def _moved(slopes: list, errors: list[torch.Tensor]) -> float:
    """v J e; 0 if the gradient is not finite: a quotient of two numbers that became 0."""
    moved = sum(float((s.double() * e).sum()) for s, e in zip(slopes, errors, strict=False) if s is not None)
    return moved if math.isfinite(moved) else 0.0


def _arguments(staged: Staged, stage: StageGraph, observations: Iterable[Mapping]) -> list[list[torch.Tensor]]:
    """Arguments of the stage's graph, for some iterations of its loop."""
    ports = [p.name for p in stage.inputs]
    every = max(1, stage.iterations // SEEN)
    calls: list[dict[str, torch.Tensor]] = []
    for inputs in observations:
        seen: list[dict[str, torch.Tensor]] = []
        StageRunner(staged).run(inputs, observe=_keep(stage, ports, seen))
        calls += seen[::every]
    return [[call[p] for p in ports] for call in calls]


def _keep(stage: StageGraph, ports: list[str], seen: list[dict[str, torch.Tensor]]) -> Callable:
    def observe(other: StageGraph, node: Node, result: object) -> None:
        if other.name == stage.name and node.op == "placeholder":
            if node.name == ports[0]:
                seen.append({})
            seen[-1][node.name] = result

    return observe


@dataclass(frozen=True)
class _Row:
    """zeros: tensors that were added to the results. weights, result: rounding errors, f64; see ErrorShare."""

    node: str
    zeros: tuple[torch.Tensor, ...]
    weights: list[torch.Tensor]
    result: list[torch.Tensor]


class _Tape(Interpreter):
    """Runs the graph with a zero tensor added to every result, by which the outputs are differentiated."""

    def __init__(self, stage: StageGraph, masked: Collection[str]):
        super().__init__(_module_of(stage), garbage_collect_values=False)
        self.plain: tuple[torch.Tensor, ...] | None = None  # the outputs without errors
        self.masked = masked
        self.rows: list[_Row] = []

    def moved_by(self, args: Sequence[torch.Tensor], node: str, errors: Sequence[torch.Tensor]) -> float:
        """Squared relative error of the outputs if this node's results have these errors."""
        if not any(bool(e.any()) for e in errors):
            return 0.0
        with torch.no_grad():
            got = _Shifted(self.module, node, errors).run(*args)
            if self.plain is None:
                self.plain = _Shifted(self.module, "", ()).run(*args)
        pairs = [(a.double(), b.double()) for a, b in zip(got, self.plain, strict=True) if b.dtype == torch.float32]
        parts = [float(_finite(a - b).square().sum()) / (float(_finite(b).square().sum()) + 1e-30) for a, b in pairs]
        return max(parts, default=0.0)

    def run_node(self, n: Node):
        result = self._with_slope(n, super().run_node(n))
        if n.op not in ("call_function", "placeholder") or not is_f32(n) or moves(n):
            return result
        with torch.no_grad():
            values = tensors(result)
            stored = [_finite(self._narrow(n, t).double() - t.double()) for t in values]
            weighed = [_finite(a.double() - b.double())
                       for a, b in zip(tensors(self._with_fp16_weights(n)), values, strict=False)]
        zeros = tuple(torch.zeros_like(t, requires_grad=True) for t in values)
        self.rows.append(_Row(n.name, zeros, weighed, stored))
        moved = tuple(t + z for t, z in zip(values, zeros, strict=True))
        return moved[0] if isinstance(result, torch.Tensor) else type(result)(moved)

    def _with_slope(self, n: Node, result):
        """The result; if its op is not differentiable, with gradient 1 to every operand of the same size."""
        if n.op != "call_function" or not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        if not any(isinstance(t, torch.Tensor) and t.requires_grad for t in map(self.env.get, n.all_input_nodes)):
            return result
        if packet(n) is torch.ops.aten.copy:
            return self.env[n.args[1]].expand(result.shape).clone()
        if known(n) and "NotImplemented" not in (result.grad_fn.name() if result.grad_fn is not None else ""):
            return result
        if result.grad_fn is not None and getattr(n.target, "namespace", "") == "vlacompile":
            return result
        result = result.detach()
        for t in map(self.env.get, n.all_input_nodes):
            if isinstance(t, torch.Tensor) and t.requires_grad and t.numel() == result.numel():
                result = result + (t - t.detach()).reshape(result.shape).to(result.dtype)
        return result

    def _narrow(self, n: Node, t: torch.Tensor) -> torch.Tensor:
        return (saturated(t) if n.name in self.masked else t).half().float()

    def _with_fp16_weights(self, n: Node):
        if not any(i.op == "get_attr" and is_f32(i) for i in n.all_input_nodes):
            return ()
        read = lambda i: self._narrow(i, self.env[i]) if i.op == "get_attr" and is_f32(i) else self.env[i]
        return n.target(*map_arg(n.args, read), **map_arg(n.kwargs, read))


class _Shifted(Interpreter):
    """Runs the graph with errors, f64, added to the results of one node."""

    def __init__(self, module: torch.fx.GraphModule, node: str, errors: Sequence[torch.Tensor]):
        super().__init__(module)
        self.node, self.errors = node, errors

    def run_node(self, n: Node):
        result = super().run_node(n)
        if n.name != self.node:
            return result
        moved = tuple((t.double() + e).to(t.dtype) for t, e in zip(tensors(result), self.errors, strict=True))
        return moved[0] if isinstance(result, torch.Tensor) else type(result)(moved)


def _finite(error: torch.Tensor) -> torch.Tensor:
    """Errors without those of saturated masks, which have no effect."""
    return error.nan_to_num(0.0, 0.0, 0.0) * (error.abs() < 1e30)


def _module_of(stage: StageGraph) -> torch.fx.GraphModule:
    root = torch.nn.Module()
    for name, tensor in stage.constants.items():
        root.register_buffer(name, tensor, persistent=False)
    return torch.fx.GraphModule(root, stage.graph)
