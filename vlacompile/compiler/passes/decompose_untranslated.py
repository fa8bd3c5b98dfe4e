"""Writes ops that have no ONNX with ops that have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch.fx import Graph, Node

from vlacompile.compiler.graph.invariants import REAL_NUMBERS
from vlacompile.compiler.graph.program import Program
from vlacompile.compiler.passes.graph_pass import Effect, GraphPass, PassResult
from vlacompile.compiler.passes.rules.decompositions import WRITTEN
from vlacompile.compiler.passes.rules.derivative_decompositions import DERIVATIVES
from vlacompile.compiler.passes.rules.inline_graph import inlined, trace
from vlacompile.compiler.passes.rules.linalg_decompositions import LINALG
from vlacompile.compiler.passes.rules.pooling_decompositions import POOLING
from vlacompile.compiler.passes.rules.scatter_decompositions import SCATTERS

_ATEN = torch.ops.aten
_TABLE = WRITTEN | LINALG | POOLING | SCATTERS | DERIVATIVES
# Written out although there is ONNX: TensorRT has no Det, several results cannot be computed beforehand, PyTorch has no
# shapes for quantisation that is tried out, onnxscript 0.7.2 takes exponentials of what it has not shifted,
# and what it makes of masked_scatter, embedding_bag and col2im TensorRT has not; its histc has no ends of the values,
# its atan2 no zeros with a sign.
_ALWAYS = frozenset({_ATEN.atan2.default, _ATEN.log_sigmoid.default, _ATEN.logaddexp.default, _ATEN.logaddexp2.default,
                     _ATEN.linalg_det.default, _ATEN.det.default, _ATEN.meshgrid.default, _ATEN.meshgrid.indexing,
                     _ATEN.histc.default, _ATEN.masked_scatter.default,
                     _ATEN.embedding_bag.padding_idx, _ATEN.embedding_bag.default, _ATEN._embedding_bag.default,
                     _ATEN._embedding_bag_forward_only.default, _ATEN.col2im.default,
                     _ATEN.fake_quantize_per_tensor_affine.default,
                     _ATEN.fake_quantize_per_tensor_affine.tensor_qparams})


def _is_left(node: Node, translated: Callable) -> bool:
    if node.op != "call_function":
        return True
    if node.target is _ATEN.scatter_reduce.two:  # onnxscript 0.7.2 divides no mean, and a maximum has no -inf
        return node.args[4] != "mean" and node.kwargs.get("include_self", True)
    return translated(node.target) and node.target not in _ALWAYS


def _is_partial(node: Node) -> bool:
    """Whether some of its results are not computed, as a derivative by weights that nobody asks for: they have no
    type, which precision is chosen by."""
    value = node.meta["val"]
    return isinstance(value, (tuple, list)) and any(v is None for v in value)


def _is_list(node: Node) -> bool:
    """Whether its value is a list of tensors, which no stage can hand to another."""
    return isinstance(node.target, torch._ops.OpOverload) and any(
        str(r.type) == "List[Tensor]" for r in node.target._schema.returns)


@dataclass(frozen=True)
class DecomposeUntranslated(GraphPass):
    """An op that `translated` does not know becomes what it does, traced from PyTorch's own function of other ops for
    it, or from ours. What comes to known ops by `decompositions` alone is left as it is, as the emitter does that,
    unless some of its results are not computed or they are a list.

    translated: whether an op has ONNX. decompositions: gives {op: function}, those that the emitter applies by itself.

    Before:
        %x = source "x" f32[1,3]
        %y = source "y" f32[1,3]
        %copysign = copysign.Tensor(%x, %y) f32[1,3]
        return action=%copysign
    After:
        %x = source "x" f32[1,3]
        %y = source "y" f32[1,3]
        %lt = lt.Scalar(%y, 0) bool[1,3]
        %eq = eq.Scalar(%y, 0) bool[1,3]
        %reciprocal = reciprocal(%y) f32[1,3]
        %lt_1 = lt.Scalar(%reciprocal, 0) bool[1,3]
        %bitwise_and = bitwise_and.Tensor(%eq, %lt_1) bool[1,3]
        %bitwise_or = bitwise_or.Tensor(%lt, %bitwise_and) bool[1,3]
        %abs_1 = abs(%x) f32[1,3]
        %neg = neg(%abs_1) f32[1,3]
        %abs_2 = abs(%x) f32[1,3]
        %where = where.self(%bitwise_or, %neg, %abs_2) f32[1,3]
        return action=%where
    """

    requires = frozenset({REAL_NUMBERS})
    may_change = frozenset({Effect.FEWER_DEPENDENCIES})

    translated: Callable[[torch._ops.OpOverload], bool]
    decompositions: Callable[[], Mapping[torch._ops.OpOverload, Callable]] = dict

    def run(self, program: Program) -> PassResult:
        made, count = inlined(
            program, lambda n: None if _is_left(n, self.translated) else partial(self._graph, n))
        return PassResult(made, bool(count), tuple(
            f"wrote {n} of {name} with other ops" for name, n in sorted(count.items())))

    def _graph(self, node: Node) -> Graph | None:
        """What to put in the place of `node`; None: it stays."""
        emitters = self.decompositions()
        if node.target not in _TABLE:
            alone = trace(node, emitters.get(node.target, node.target), emitters)
            if alone is not None and self._all_known(alone):
                return alone if _is_partial(node) or _is_list(node) else None
        table = {**emitters, **{t: f for t, f in _TABLE.items() if t in _ALWAYS or not self.translated(t)}}
        found = trace(node, _TABLE.get(node.target) or table.get(node.target, node.target), table)
        return found if found is not None and self._all_known(found) else None

    def _all_known(self, graph: Graph) -> bool:
        return all(n.op != "call_function" or self.translated(n.target) for n in graph.nodes)
