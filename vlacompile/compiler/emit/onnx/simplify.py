"""Simplifies a translated graph without changing a number: the rewrites that are used, and why each is exact.

The optimiser that torch.onnx would call (onnxscript 0.7.2, optimize=True) is not used: it matches constants with a
tolerance of 1e-8 absolute and 1e-5 relative (`x + 1e-8` becomes x), and some of its rules change numbers. Disabled, so
that nobody enables them again without knowing why:
  no_op: `x + 0`, `x - 0`, `x * 1`, `x / 1` with that tolerance;
  broadcast_to_matmul: a batched product between reshapes becomes one product of 2-D matrices if the shapes allow it;
  successive_clip, clip_relu, relu_clip: another result if the intervals are disjoint; min_max_to_clip: another shape
    if a bound has dimensions;
  redundant_scatter_nd: also of one that adds;
  slice_split: by its text, other parts if a length is odd; cast_constant_of_shape: affects the compiler's casts of
    values that no dtype represents;
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

# Larger constants are not folded, unless the ops only move elements and nothing else reads the constants.
FOLDED_ELEMENTS = 8192
# Ops that move, copy or convert elements: the result does not depend on the implementation.
_MOVES = frozenset("Cast CastLike Concat Expand Flatten Gather GatherElements GatherND Identity Range Reshape Shape "
                   "Size Slice "
                   "Squeeze Tile Transpose Trilu Unsqueeze Where".split())
# Ops with a single correct result: comparisons, logic, and arithmetic that IEEE 754 rounds correctly.
_ROUNDED = frozenset("Abs Add And Ceil Div Equal Floor Greater GreaterOrEqual Less LessOrEqual Max Min Mul Neg Not Or "
                     "Sqrt Sub "
                     "Xor".split())


class NoOperation(RewriteRuleClassBase):
    """Removes x * 1, x / 1, x - 0 and integers + 0, for exactly that constant, with at most as many dimensions as x."""

    def __init__(self, op_type: str):
        super().__init__(f"NoOperation{op_type}")
        self.op_type = op_type

    def pattern(self, op, x, c):
        return getattr(op, self.op_type)(x, c)

    def check(self, context, x: ir.Value, c: ir.Value, **_) -> MatchResult:
        result, tensor = MatchResult(), ir.convenience.get_const_tensor(c)
        if tensor is None or tensor.size != 1 or x.shape is None or len(tensor.shape) > len(x.shape):
            return result.fail("The operand is not a constant scalar.")
        value = tensor.numpy().item()
        if value != (1 if self.op_type in ("Mul", "Div") else 0):
            return result.fail("It is not the identity.")
        if isinstance(value, float) and (self.op_type == "Add" or np.signbit(value)):
            return result.fail("-0.0 + 0.0 is 0.0.")
        return result

    def rewrite(self, op, x: ir.Value, **_):
        return op.Identity(x)


class MaxMinToClip(RewriteRuleClassBase):
    """min(max(x, low), high), the translation of clamp() with integer bounds, becomes the equivalent Clip; for numbers
    low <= high, not NaN."""

    def pattern(self, op, x, low, high):
        return op.Min(op.Max(x, low), high)

    def check(self, context, x: ir.Value, low: ir.Value, high: ir.Value) -> MatchResult:
        result, ends = MatchResult(), [ir.convenience.get_const_tensor(v) for v in (low, high)]
        if any(t is None or len(t.shape) for t in ends):
            return result.fail("A bound is not a constant scalar.")
        if x.dtype is None or not x.dtype.is_floating_point():
            return result.fail("TensorRT has Clip for floating-point numbers only.")
        return result if ends[0].numpy() <= ends[1].numpy() else result.fail("The interval is empty.")

    def rewrite(self, op, x: ir.Value, low: ir.Value, high: ir.Value):
        return op.Clip(x, low, high)


# Each removes or merges ops that only move elements, or that convert them to the dtype that they already have.
RULES: tuple[RewriteRule, ...] = (
    _collapse_slices.collapse_slice_rule,  # a slice from 0 to the end, step 1
    _collapse_slices.collapse_slice2_rule,  # a slice, step 1, with the shape of its operand
    _materialize_reshape_shape.materialize_reshape_shape_rule,  # a shape that is constant
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
    """Whether the node may be folded; None: yes, if its result is small enough."""
    known = node.op_type in _MOVES or node.op_type in _ROUNDED
    integers = any(v is not None and v.dtype is not None and v.dtype.is_integer() for v in node.inputs)
    if node.domain or not known or (node.op_type == "Div" and integers):  # onnx 1.23's NumPy division rounds down
        return False
    return None


class _FoldConstants(FoldConstantsPass):
    """onnxscript's, which asks onnx for types and shapes again that are known, node by node."""

    def _do_inference(self, node: ir.Node) -> None:
        if not all(v.type is not None and v.shape is not None and v.shape.is_static() for v in node.outputs):
            super()._do_inference(node)


class _RuleOfOp:
    """A rule that looks only at the ops that its pattern ends with: a RewriteRuleSet tries each on every node."""

    def __init__(self, rule: RewriteRule):
        self._rule, self._ends = rule, rule._target_pattern.output_nodes

    def __getattr__(self, name: str):
        return getattr(self._rule, name)

    def try_rewrite(self, model: ir.Model, graph: ir.Graph, node: ir.Node, **named):
        if not any(end.op.matches(node.op_type) for end in self._ends):
            return None
        return self._rule.try_rewrite(model, graph, node, **named)


def simplify(model: ir.Model) -> None:
    """Simplifies the model in place."""
    rounds = [_FoldConstants(shape_inference=True, input_size_limit=FOLDED_ELEMENTS, output_size_limit=512 * 512,
                                should_fold=_may_fold),
              RewritePass([_RuleOfOp(rule) for rule in RULES]), common.RemoveUnusedNodesPass(),
              common.RemoveUnusedFunctionsPass(), common.RemoveUnusedOpsetsPass()]
    ir.passes.Sequential(
        common.InlinePass(), ir.passes.PassManager(rounds, steps=2, early_stop=True), common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(), common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(), common.OutputFixPass(), common.NameFixPass())(model)
