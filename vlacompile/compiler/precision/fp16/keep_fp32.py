"""Which nodes stay FP32 when a policy is converted to fp16, each with the reason.

Reasons are of two kinds: results of the range scan, and the role of a node (norms, accumulators of a loop, positions,
the last ops before an action). Must not know how a graph is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.compiler.graph.ops import flops, is_pointwise
from vlacompile.compiler.graph.rolled_loop import FUSED
from vlacompile.compiler.precision.fp16.attention_masks import mask_values, masks
from vlacompile.compiler.precision.fp16.fp16_kernels import lost_number
from vlacompile.compiler.precision.fp16.op_kinds import (
    LARGEST,
    ROUNDOFF,
    SMALLEST_NORMAL,
    adds_at_indices,
    behind,
    chooses,
    counts_from_integers,
    decides,
    is_attention,
    is_f32,
    is_glue,
    is_norm,
    is_periodic,
    is_reduction,
    is_root,
    is_softmax,
    known,
    moves,
    multiplies,
    packet,
    squares,
)
from vlacompile.compiler.precision.fp16.range_scan import NodeRange, Ranges
from vlacompile.compiler.staging.stages import Staged, StageGraph

KINDS = frozenset({
    "unknown", "overflow", "underflow", "number", "accumulation", "rounding",  # results of the range scan
    "logits", "norm", "accumulator", "action", "position", "decision",  # the role of the node
    "reads", "between", "error",  # precision of its neighbours; the check of whole stages
    "recipe"})  # a rule of the recipe


@dataclass(frozen=True)
class KeptFp32:
    """kind: one of KINDS. why: for people, with the number that decided."""

    kind: str
    why: str

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind


@dataclass(frozen=True)
class KeepRules:
    """margin: factor by which values of other observations may be larger or smaller than those of the scan.
    stored, local: largest relative L2 error of storing a value, and of computing one node alone, in fp16; rounding
    alone causes 2e-4 to 6e-4. accumulation: largest relative error of sequential summation in fp16, terms * 2^-11.
    logit: largest relative error of a softmax due to rounding of its logits. close: largest share of the rows of
    scores in which the chosen one leads by less than fp16 may be off.
    cheap: the last products before an action or a carried value stay FP32 if they are at most this share of the stage's
    work."""

    margin: float = 4.0
    stored: float = 1e-3
    local: float = 5e-3
    accumulation: float = 0.1
    logit: float = 0.1
    close: float = 0.1
    cheap: float = 0.05


_DIVIDES = frozenset({torch.ops.aten.div, torch.ops.aten.reciprocal, torch.ops.aten.rsqrt, torch.ops.aten.log})
_SMALL_STAYS = frozenset({torch.ops.aten.sqrt, torch.ops.aten.clamp, torch.ops.aten.clamp_min, torch.ops.aten.maximum})
Kept = Mapping[str, KeptFp32]  # {node name: reason}


def find_kept_fp32(staged: Staged, ranges: Ranges, rules: KeepRules = KeepRules(),
                   extra: Mapping[str, Kept] | None = None) -> dict[str, dict[str, KeptFp32]]:
    """{stage: {node: KeptFp32}}. ranges: of `scan` over the same stages with the same margin. extra: nodes that are
    kept for another reason; nodes that must stay FP32 because of them are added."""
    values = mask_values(staged)
    return {s.name: _Pinner(s, ranges[s.name], masks(s, values), rules, frozenset(staged.program.outputs)).find(
        (extra or {}).get(s.name, {})) for s in staged.stages}


class _Pinner:
    """Finds the nodes of one stage that stay FP32; the first reason found for a node is recorded."""

    def __init__(self, stage: StageGraph, rows: Mapping[str, NodeRange], masked: frozenset[str], rules: KeepRules,
                 actions: frozenset[str]):
        self.stage, self.rows, self.masked, self.rules, self.actions = stage, rows, masked, rules, actions
        self.kept_fp32: dict[str, KeptFp32] = {}
        self.nodes = [n for n in stage.graph.nodes if n.op == "call_function"]

    def find(self, extra: Kept) -> dict[str, KeptFp32]:
        for node in self.nodes:
            self._norm(node)
        for node in self.nodes:
            if is_f32(node):
                self._measured(node)
        for node in self.nodes:
            self._logits(node)
            self._position(node)
        self._accumulators()
        self._actions()
        for name, reason in extra.items():
            self.kept_fp32.setdefault(name, reason)
        self._readers()
        for node in self.nodes:
            if is_f32(node):
                self._rounding(node)
        self._between()
        return self.kept_fp32

    def keep(self, node: Node, kind: str, why: str) -> None:
        if node.op == "call_function" and is_f32(node):
            self.kept_fp32.setdefault(node.name, KeptFp32(kind, why))

    def _measured(self, node: Node) -> None:
        row, rules = self.rows[node.name], self.rules
        if not known(node) or not row.kernel:
            self.keep(node, "unknown", "no fp16 kernel of this op is known")
            return
        if adds_at_indices(node):
            self.keep(node, "accumulation", "adds where indices say: ONNX Runtime has no fp16 kernel for that")
            return
        if is_norm(node):
            self.keep(node, "norm", f"sums squares up to {row.partial:.3g}")
            return
        if bad := self._unstorable(node):
            self.keep(node, *bad)
        number = lost_number(node, node.name in self.masked)
        if number is not None:
            self.keep(node, "number", f"its argument {number:g} is not representable in fp16")
            if abs(number) < SMALLEST_NORMAL:
                self._divided_by(node, f"divides by {node.name}, which only {number:g} keeps from being 0")
        if row.partial * rules.margin > LARGEST:
            self.keep(node, "accumulation", f"partial sums up to {row.partial:.3g}, of {row.terms or 'all'} terms")
        if is_reduction(node) and row.terms * ROUNDOFF > rules.accumulation:
            self.keep(node, "accumulation", f"sums {row.terms} terms: an fp16 sum of as many may be off by "
                      f"{min(1.0, row.terms * ROUNDOFF):.0%}")

    def _divided_by(self, node: Node, why: str) -> None:
        """Keeps divisions by a value plus an epsilon that fp16 flushes to 0: on inputs of zeros the divisor would be
        0."""
        for user in node.users:
            if moves(user) or packet(user) in _SMALL_STAYS:
                self.keep(user, "reads", why)
                self._divided_by(user, why)
            elif packet(user) in _DIVIDES:
                self.keep(user, "reads", why)

    def _unstorable(self, node: Node) -> tuple[str, str] | None:
        row = self.rows.get(node.name)
        if row is None:
            return None
        if row.largest * self.rules.margin > LARGEST:
            return "overflow", (f"values up to {row.largest:.3g}; fp16 ends at {LARGEST:.0f}, "
                                f"margin {self.rules.margin:g}")
        if node.op == "call_function" and row.stored_error > self.rules.stored:
            return "underflow", (f"values down to {row.smallest:.2g}: {row.flushed / row.energy:.2g} of its energy "
                                 f"becomes 0, {row.subnormal / row.energy:.2g} subnormal")
        return None

    def _norm(self, node: Node) -> None:
        """A norm composed of basic ops: a reduction of squares, a root, and the scaling of the input."""
        square = node.args[0] if node.args else None
        if is_reduction(node) and squares(square):
            small = list(_ahead(node, lambda m: is_pointwise(m) and _size(m) == _size(node)))
            if not any(is_root(m) for m in small):
                return
            why = f"a norm composed of basic ops: squares up to {self.rows[square.name].largest:.3g}"
            centred = [n for n in square.all_input_nodes if packet(n) is torch.ops.aten.sub
                       and any(is_reduction(i) for i in n.all_input_nodes)]
            means = [i for n in centred for i in n.all_input_nodes if is_reduction(i)]
            scaled = [u for m in small for u in m.users if is_pointwise(u) and _size(u) > _size(m)]
            for n in (*means, *centred, square, node, *small, *scaled):
                self.keep(n, "norm", why)

    def _logits(self, node: Node) -> None:
        row = self.rows.get(node.name)
        if not (is_softmax(node) or is_attention(node)) or row is None:
            return
        if row.logit * ROUNDOFF <= self.rules.logit and not row.breaks:
            return
        why = f"logits up to {row.logit:.3g} at the maximum of a row: fp16 is off by {row.logit * ROUNDOFF:.2g} there"
        self.keep(node, "logits", why)
        if is_softmax(node):
            for n in behind([node.args[0]], is_glue):
                self.keep(n, "logits", why)
                for m in n.all_input_nodes:
                    if multiplies(m):
                        self.keep(m, "logits", why)
            if multiplies(node.args[0]):
                self.keep(node.args[0], "logits", why)

    def _position(self, node: Node) -> None:
        if is_periodic(node):
            for n in behind([node], lambda n: n.op == "call_function" and not (multiplies(n) and _weighs(n))):
                self.keep(n, "position", f"an angle, for {node.name}")
        elif counts_from_integers(node):
            self.keep(node, "position", "integers, which fp16 represents exactly only up to 2048")
        elif decides(node):
            self.keep(node, "decision", "rounds to a whole number")
            before = behind(node.all_input_nodes, is_glue)
            for n in before:
                self.keep(n, "decision", f"decides {node.name}")
            if chooses(node):
                self._scores(node, before)

    def _scores(self, node: Node, glue: list[Node]) -> None:
        """Keeps the products from which the largest or smallest is found, where fp16 would often find another."""
        scores = node.args[0]
        row = self.rows[scores.name]
        if row.close > self.rules.close * row.chosen:
            for n in {scores, *(i for g in glue for i in g.all_input_nodes)}:
                if multiplies(n):
                    self.keep(n, "decision", f"decides {node.name}: in {row.close} of {row.chosen} rows the score that "
                              "it chooses leads by less than fp16 may be off")

    def _accumulators(self) -> None:
        """Keeps the ops between a carried value and its next value: errors there accumulate over the iterations."""
        outputs = self.stage.graph.output_node().args[0]
        carried = [outputs[c.output] for c in self.stage.carries]
        fused = [n for n in self.nodes if FUSED in n.meta]
        self._ends([*carried, *fused], "accumulator", "updates a value that the loop carries: errors accumulate")

    def _actions(self) -> None:
        outputs = self.stage.graph.output_node().args[0]
        ends = [n for p, n in zip(self.stage.outputs, outputs, strict=True) if p.value in self.actions]
        self._ends(ends, "action", "the last ops before the action: errors there reach the robot directly")

    def _ends(self, ends: list[Node], kind: str, why: str) -> None:
        """Keeps the element-wise ops before these results, and the products that feed them if those are cheap."""
        steps = behind(ends, is_glue)
        for n in steps:
            self.keep(n, kind, why)
        products = {i for n in (*steps, *ends) for i in (n, *n.all_input_nodes) if multiplies(i)}
        if sum(flops(n) for n in products) <= self.rules.cheap * self.stage.flops:
            for n in products:
                self.keep(n, kind, f"{why}; {flops(n) / self.stage.flops:.1%} of the stage's work")

    def _readers(self) -> None:
        """Readers of a value that overflows in fp16 must read it in FP32."""
        for node in self.stage.graph.nodes:
            bad = is_f32(node) and node.name not in self.masked and self._unstorable(node)
            if bad and bad[0] == "overflow":
                for user in node.users:
                    self.keep(user, "reads", f"reads {node.name}: {bad[1]}")

    def _rounding(self, node: Node) -> None:
        """Large errors without one of the reasons above: cancellation, or an op that amplifies its inputs' errors."""
        error = self.rows[node.name].local_error
        if not is_softmax(node) and not is_attention(node) and error > self.rules.local:
            self.keep(node, "rounding", f"computed alone in fp16, its relative error is {error:.2g}")

    def _between(self) -> None:
        """Glue that is surrounded by FP32 nodes: casting it to fp16 and back would gain nothing and lose precision."""
        why = "all its neighbours are FP32"
        for part in _parts(self.nodes, lambda n: n.name not in self.kept_fp32 and is_f32(n)):
            if not any(multiplies(n) or _looks_up(n) for n in part) and all(self._is_wide(n) for n in _around(part)):
                for n in part:
                    self.keep(n, "between", why)
        wide: dict[Node, bool] = {}
        for n in self.stage.graph.nodes:
            reads = [i for i in n.all_input_nodes if is_f32(i) and i.op != "get_attr"]
            wide[n] = n.name in self.kept_fp32 or n.op == "placeholder" or (moves(n) and any(wide[i] for i in reads))
        for n in reversed(self.nodes):
            if wide[n] and moves(n) and any(u.name in self.kept_fp32 for u in n.users):
                self.keep(n, "between", "moves data from one FP32 node to another")

    def _is_wide(self, node: Node) -> bool:
        return node.op != "call_function" or not is_f32(node) or node.name in self.kept_fp32


def _looks_up(node: Node) -> bool:
    """An embedding table, whose size fp16 halves."""
    return packet(node) is torch.ops.aten.embedding


def _weighs(node: Node) -> bool:
    """A product with an inner dimension above 1; the outer product of positions and frequencies is not one."""
    left = node.args[0].meta["val"]
    return left.shape[-1] != 1


def _size(node: Node) -> int:
    val = node.meta["val"]
    return val.numel() if isinstance(val, torch.Tensor) else 0


def _ahead(start: Node, into: Callable[[Node], bool]) -> list[Node]:
    found: dict[Node, None] = {}
    stack = list(start.users)
    while stack:
        node = stack.pop()
        if node not in found and node.op == "call_function" and into(node):
            found[node] = None
            stack.extend(node.users)
    return list(found)


def _parts(nodes: list[Node], member: Callable[[Node], bool]) -> list[list[Node]]:
    """Connected components of the subgraph of those `nodes` for which `member` holds."""
    left, parts = {n for n in nodes if member(n)}, []
    for start in nodes:
        if start not in left:
            continue
        part, stack = [], [start]
        left.discard(start)
        while stack:
            n = stack.pop()
            part.append(n)
            for m in (*n.all_input_nodes, *n.users):
                if m in left:
                    left.discard(m)
                    stack.append(m)
        parts.append(part)
    return parts


def _around(part: list[Node]) -> list[Node]:
    inside = set(part)
    return [m for n in part for m in (*n.all_input_nodes, *n.users) if m not in inside]
