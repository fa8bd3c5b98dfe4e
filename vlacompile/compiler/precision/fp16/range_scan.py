"""Range scan: the ranges of all values in stage graphs on observations, and the errors that fp16 would cause.

Every node is observed once per observation and loop iteration; only sums and extremes are kept. Must not know what is
decided from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from vlacompile.compiler.graph.ops import flops
from vlacompile.compiler.precision.fp16.attention_masks import mask_values, masks
from vlacompile.compiler.precision.fp16.fp16_kernels import NoKernel, called_in_fp16, off_by
from vlacompile.compiler.precision.fp16.op_kinds import (
    LARGEST,
    MASKED,
    ROUNDOFF,
    SMALLEST_NORMAL,
    chooses,
    is_attention,
    is_f32,
    is_norm,
    is_reduction,
    is_softmax,
    known,
    lead,
    moves,
    multiplies,
    packet,
    tensors,
)
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph

_ATEN = torch.ops.aten
OFF = 4 * ROUNDOFF  # by which two sums of products in fp16 may be off together, relative to their size
SIGNIFICANT = 16.0  # a logit this far below the largest of its row has no effect (exp(-16) = 1e-7)


@dataclass
class NodeRange:
    """Statistics of one f32 node over all observations.

    largest, smallest: magnitudes; smallest excludes 0. Masked logits are left out.
    energy: sum of squares. flushed, subnormal: the part of it that is 0 or subnormal in fp16 if the values are smaller
    by the margin. stored: sum of squared errors of storing the value as fp16, smaller by the margin.
    local: sum of squared errors of computing only this node in fp16 (operands and result in fp16, sums in f32), from
    f32 inputs. breaks: that produced an infinity or NaN.
    partial: upper bound of partial sums in any order of accumulation: sum|a b| (+|bias|), sum|x| or sum x^2.
    terms: number of terms of a sum.
    logit: the largest magnitude of a logit with an effect in a softmax.
    chosen, close: rows of which a later node finds the largest or smallest elements, and those of them in which the
    elements found lead the next one by less than fp16 may be off.
    kernel: False if PyTorch has no fp16 kernel for the node.
    """

    largest: float = 0.0
    smallest: float = math.inf
    energy: float = 0.0
    flushed: float = 0.0
    subnormal: float = 0.0
    stored: float = 0.0
    local: float = 0.0
    breaks: bool = False
    partial: float = 0.0
    terms: int = 0
    logit: float = 0.0
    chosen: int = 0
    close: int = 0
    kernel: bool = True

    @property
    def stored_error(self) -> float:
        """Relative L2 error."""
        return math.sqrt(self.stored / self.energy) if self.energy else 0.0

    @property
    def local_error(self) -> float:
        """Relative L2 error; infinite if fp16 overflows or gives NaN."""
        if self.breaks:
            return math.inf
        return math.sqrt(self.local / self.energy) if self.energy else (math.inf if self.local else 0.0)

    def see(self, value: torch.Tensor, masked: bool, margin: float) -> None:
        x = value.detach().float()
        if masked:
            x = torch.where(x < MASKED / 2, 0.0, x)
        size = x.abs()
        size = size[torch.isfinite(size)] if not bool(torch.isfinite(size).all()) else size.flatten()
        if not size.numel():
            return
        self.largest = max(self.largest, float(size.max()))
        there = size[size > 0]
        if not there.numel():
            return
        self.smallest = min(self.smallest, float(there.min()))
        power = there.double().square()
        smaller = there / margin
        self.energy += float(power.sum())
        self.flushed += float(power[smaller.half() == 0].sum())
        self.subnormal += float(power[smaller < SMALLEST_NORMAL].sum())
        self.stored += float((smaller.half().double() * margin - there.double()).clamp(max=LARGEST).square().sum())


Ranges = Mapping[str, Mapping[str, NodeRange]]  # {stage: {node: range}}


def scan(staged: Staged, observations: Iterable[Mapping[str, torch.Tensor]], margin: float = 4.0) -> Ranges:
    """Ranges of every f32 node of every stage. observations: inputs by source name; for a history the newest frame.
    margin: factor by which values may be smaller or larger on other observations; underflow is checked down to that."""
    values = mask_values(staged)
    scanner = _Scanner({s.name: masks(s, values) for s in staged.stages}, margin)
    runner = StageRunner(staged)
    for inputs in observations:
        runner.run(inputs, observe=scanner)
    return scanner.found


class _Scanner:
    """Called for every node in graph order; keeps values that later nodes of the same iteration read."""

    def __init__(self, masked: Mapping[str, frozenset[str]], margin: float):
        self.masked, self.margin = masked, margin
        self.found: dict[str, dict[str, NodeRange]] = {}
        self.live: dict[Node, object] = {}
        self.left: dict[Node, int] = {}

    def __call__(self, stage: StageGraph, node: Node, result: object) -> None:
        if node is next(iter(stage.graph.nodes)):
            self.live, self.left = {}, {n: len(n.users) for n in stage.graph.nodes}
        self.live[node] = result
        rows = self.found.setdefault(stage.name, {})
        if is_f32(node) and not (node.op == "get_attr" and node.name in rows):
            row = rows.setdefault(node.name, NodeRange())
            masked = node.name in self.masked[stage.name]
            for value in tensors(result):
                row.see(value, masked, self.margin)
            if node.op == "call_function" and known(node):
                self._compute(stage, node, result, row)
        if node.op == "call_function" and chooses(node):
            self._choose(node, rows[node.args[0].name])
        for n in node.all_input_nodes:
            self.left[n] -= 1
            if not self.left[n]:
                del self.live[n]

    def _compute(self, stage: StageGraph, node: Node, result: object, row: NodeRange) -> None:
        args, kwargs = (map_arg(a, self.live.__getitem__) for a in (node.args, node.kwargs))
        if multiplies(node) and not is_attention(node):
            row.partial = max(row.partial, _peak(node.target(*_absolute(args), **_absolute(kwargs))))
            row.terms = _terms(node)
        elif is_reduction(node) or is_norm(node):
            row.terms = max(1, args[0].numel() // max(1, tensors(result)[0].numel())) if is_reduction(node) else 0
            row.partial = max(row.partial, _partial_of_reduction(node, args, kwargs, row.terms))
        if is_softmax(node):
            row.logit = max(row.logit, largest_logit(args[0], args[1]))
        elif is_attention(node):
            row.logit = max(row.logit, largest_logit(_logits(node, args, kwargs), -1))
        if not moves(node):
            self._try(node, self.masked[stage.name], result, row)

    def _choose(self, node: Node, row: NodeRange) -> None:
        by, size = lead(node, self.live[node.args[0]].detach().float())
        row.chosen += by.numel()
        row.close += int((by < OFF * size).sum())

    def _try(self, node: Node, inside: frozenset[str], result: object, row: NodeRange) -> None:
        try:
            tried = called_in_fp16(node, self.live, inside, self.margin)
        except NoKernel:
            row.kernel = False
            return
        if tried is None:
            row.breaks = True
            return
        for off in off_by(node, tried, result, inside):
            row.breaks |= not bool(torch.isfinite(off).all())
            row.local += float(off.nan_to_num(0.0, 0.0, 0.0).square().sum())


def largest_logit(x: torch.Tensor, dim: int) -> float:
    """The largest magnitude among the logits near the maximum of their row; fully masked rows are ignored."""
    x = x.detach().float()
    top = x.amax(dim, keepdim=True)
    counts = (x >= top - SIGNIFICANT) & (top > MASKED / 2)
    return float(x[counts].abs().max()) if bool(counts.any()) else 0.0


def _logits(node: Node, args, kwargs) -> torch.Tensor:
    names = [a.name for a in node.target._schema.arguments]
    bound = dict(zip(names, args, strict=False)) | kwargs
    q, k, mask = bound["query"], bound["key"], bound.get("attn_mask")
    if k.shape[-3] != q.shape[-3]:  # grouped queries
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    logits = q @ k.transpose(-2, -1) * (bound.get("scale") or q.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
    return logits


def _partial_of_reduction(node: Node, args, kwargs, terms: int) -> float:
    if is_norm(node):  # a variance sums squares; per row, so the sum over all of them is an upper bound
        x = args[0].detach().float()
        rows = x.flatten(-len(args[1])) if packet(node) is _ATEN.layer_norm else x.reshape(x.shape[0], -1)
        return float(rows.square().sum(-1).max())
    if packet(node) in (_ATEN.sum, _ATEN.cumsum):
        return _peak(node.target(*_absolute(args), **_absolute(kwargs)))
    if packet(node) in (_ATEN.prod, _ATEN.cumprod, _ATEN.logsumexp):
        return 0.0
    return _peak(node.target(*_absolute(args), **_absolute(kwargs))) * terms  # the op computes means


def _terms(node: Node) -> int:
    return flops(node) // max(1, 2 * sum(v.numel() for v in tensors(node.meta["val"])))


def _absolute(args):
    return map_aggregate(args, lambda a: a.abs() if isinstance(a, torch.Tensor) and a.is_floating_point() else a)


def _peak(value) -> float:
    return max((float(v.float().abs().max()) for v in tensors(value) if v.numel()), default=0.0)
