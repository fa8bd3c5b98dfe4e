"""Makes a translated graph smaller without changing a number: the list of rewrites that are on, and why each is exact.

The optimiser that torch.onnx would call (onnxscript 0.7.2, optimize=True) is not used: its constants match within 1e-8
and within 1e-5 of themselves (`x + 1e-8` is x to it), and some of its rules give other numbers. Off, so that nobody
turns them on again unread:
  no_op: `x + 0`, `x - 0`, `x * 1`, `x / 1` with that tolerance;
  broadcast_to_matmul: a batched product between reshapes becomes one product of whole matrices if the shapes allow it;
  successive_clip, clip_relu, relu_clip: another result where the intervals do not meet; min_max_to_clip: another shape
    where an end has dimensions;
  redundant_scatter_nd: also of one that adds;
  slice_split: by its text, other parts of an odd length; cast_constant_of_shape: the compiler's casts of what no type
    holds;
  cast_cast: rounds f64 to f16 once instead of twice; fuse_batchnorm: compiler/passes/fold_batch_norms.py does it in
    f64;
  remove_optional_bias: -0.0 + 0.0 is 0.0; fuse_pad_into_conv: onnx_stage.py does it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from onnxscript.rewriter import MatchResult, RewritePass, RewriteRule, RewriteRuleClassBase
from onnxscript.rewriter.rules.common import _basic_rules, _collapse_slices, _materialize_reshape_shape

# Constants of more elements are not computed with, unless they only move and nothing else reads them.
FOLDED_ELEMENTS = 8192
# What moves, copies or converts numbers, and so gives the same ones wherever it is computed.
_MOVES = frozenset("Cast CastLike Concat Expand Flatten Gather GatherElements GatherND Identity Range Reshape Shape "
                   "Size Slice "
                   "Squeeze Tile Transpose Trilu Unsqueeze Where".split())
# What has one result alone: comparisons, logic, and what IEEE 754 rounds in one way.
_ROUNDED = frozenset("Abs Add And Ceil Div Equal Floor Greater GreaterOrEqual Less LessOrEqual Max Min Mul Neg Not Or "
                     "Sqrt Sub "
                     "Xor".split())


class NoOperation(RewriteRuleClassBase):
    """x * 1, x / 1, x - 0 and integers + 0, with exactly that constant of no more dimensions than x."""

    def __init__(self, op_type: str):
        super().__init__(f"NoOperation{op_type}")
        self.op_type = op_type

    def pattern(self, op, x, c):
        return getattr(op, self.op_type)(x, c)

    def check(self, context, x: ir.Value, c: ir.Value, **_) -> MatchResult:
        result, tensor = MatchResult(), ir.convenience.get_const_tensor(c)
        if tensor is None or tensor.size != 1 or x.shape is None or len(tensor.shape) > len(x.shape):
            return result.fail("It is no constant number.")
        value = tensor.numpy().item()
        if value != (1 if self.op_type in ("Mul", "Div") else 0):
            return result.fail("It does something.")
        if isinstance(value, float) and (self.op_type == "Add" or np.signbit(value)):
            return result.fail("-0.0 + 0.0 is 0.0.")
        return result

    def rewrite(self, op, x: ir.Value, **_):
        return op.Identity(x)


class MaxMinToClip(RewriteRuleClassBase):
    """min(max(x, low), high), which is what clamp() by integers is translated to, becomes Clip, which means the same;
    of numbers low <= high, not NaN."""

    def pattern(self, op, x, low, high):
        return op.Min(op.Max(x, low), high)

    def check(self, context, x: ir.Value, low: ir.Value, high: ir.Value) -> MatchResult:
        result, ends = MatchResult(), [ir.convenience.get_const_tensor(v) for v in (low, high)]
        if any(t is None or len(t.shape) for t in ends):
            return result.fail("An end is no constant number.")
        if x.dtype is None or not x.dtype.is_floating_point():
            return result.fail("TensorRT has Clip of floating-point numbers.")
        return result if ends[0].numpy() <= ends[1].numpy() else result.fail("The interval is empty.")

    def rewrite(self, op, x: ir.Value, low: ir.Value, high: ir.Value):
        return op.Clip(x, low, high)


# Each removes or joins what only moves numbers, or converts them to the type that they have.
RULES: tuple[RewriteRule, ...] = (
    _collapse_slices.collapse_slice_rule,  # a slice from 0 to the end, by steps of 1
    _collapse_slices.collapse_slice2_rule,  # a slice by steps of 1 that has the shape of what it is cut of
    _materialize_reshape_shape.materialize_reshape_shape_rule,  # a shape that is known
    _basic_rules.no_op_cast_rule,
    _basic_rules.no_op_expand_rule,
    _basic_rules.flatten_to_reshape_rule,
    _basic_rules.reshape_reshape_rule,
    _basic_rules.no_op_transpose_rule,
    _basic_rules.transpose_transpose_rule,
    _basic_rules.unsqueeze_unsqueeze_rule,
    _basic_rules.squeeze_reshape_1d_rule,
    *(rule for n in ("Mul", "Add") for rule in NoOperation.rule(n).commute()),
    *(NoOperation.rule(n) for n in ("Div", "Sub")),
    MaxMinToClip.rule(),
    RewriteRule(lambda op, x: op.Relu(op.Relu(x)), lambda op, x: op.Relu(x)),
)


def _may_fold(node: ir.Node) -> bool | None:
    """None: if it is small enough."""
    known = node.op_type in _MOVES or node.op_type in _ROUNDED
    integers = any(v is not None and v.dtype is not None and v.dtype.is_integer() for v in node.inputs)
    if node.domain or not known or (node.op_type == "Div" and integers):  # onnx 1.23 rounds quotients down in NumPy
        return False
    return None


def simplify(model: ir.Model) -> None:
    """In place."""
    rounds = [FoldConstantsPass(shape_inference=True, input_size_limit=FOLDED_ELEMENTS, output_size_limit=512 * 512,
                                should_fold=_may_fold),
              RewritePass(RULES), common.RemoveUnusedNodesPass(), common.RemoveUnusedFunctionsPass(),
              common.RemoveUnusedOpsetsPass()]
    ir.passes.Sequential(
        common.InlinePass(), ir.passes.PassManager(rounds, steps=2, early_stop=True), common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(), common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(), common.OutputFixPass(), common.NameFixPass())(model)
