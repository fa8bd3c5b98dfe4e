"""From the node that the compiler names to the line of the model that it comes from, and to the rewrite that would help."""

from __future__ import annotations

import onnx_ir as ir

from vlacompile.check.compile import Refusal

_BYTES = "cast bytes to numbers before anything else is done with them, and numbers to no bytes"
_BITS = "write it with logical_and, logical_or and logical_not of booleans, or with // and % of integers"
# What the compiler says, in part -> what to do about it. The first that fits.
_BY_WORDS = (
    ("Non-zero zero point", "quantise symmetrically: TensorRT knows no zero points"),
    ("fp8", "Orin has no FP8: use int8, or int4 for weights alone"),
    ("FP8", "Orin has no FP8: use int8, or int4 for weights alone"),
    ("UInt8", _BYTES),
    ("UINT8", _BYTES),
    ("DOUBLE", "compute in f32: TensorRT has no f64"),
    ("_M_range_check", "give every use of a dequantised weight a DequantizeLinear of its own"),
)
_BY_OP = {
    "NonZero": "write the selection with where() or a constant index: its size depends on values",
    "Unique": "its size depends on values: compute it outside the policy",
    "QuickGelu": "write x * sigmoid(1.702 * x)",
    "MatMulNBits": "build the bundle for a board: it is an op of ONNX Runtime",
    "DynamicQuantizeLinear": "build the bundle for a board: ranges are fixed beforehand there",
    "DynamicQuantizeMatMul": "build the bundle for a board: ranges are fixed beforehand there",
    "Resize": "resize without antialias=True, or with fixed weights as a matrix product",
    "BitwiseAnd": _BITS,
    "BitwiseOr": _BITS,
    "BitwiseXor": _BITS,
    "BitwiseNot": _BITS,
    "BitShift": "multiply or divide by a power of two",
    "Det": "write the determinant out (of 2x2 and 3x3 it is a sum of products), or compute it outside the policy",
    "DFT": "write the transform as two products with constant matrices of cosines and sines",
    "Col2Im": "blocks that do not overlap: reshape and permute; others: conv_transpose with a kernel of ones",
    "MaxUnpool": "keep a mask of the maxima and multiply by it, or upsample",
    "SplitToSequence": "index the parts instead of iterating over a tensor",
    "Bernoulli": "make the random numbers an input",
    "RandomNormal": "make the random numbers an input",
}
_BY_KIND = {
    "crashed": "give the stage to another engine ([stages] tvm = [...]), or write its layers in fp16 by a rule, to find "
               "the one at fault",
    "timeout": "split the stage ([stages] min_flops), or allow more time with --seconds",
    "rejected": "rewrite that line with ops that TensorRT has "
                "(https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md), or give the stage to another engine",
    "not built": "write its layers in fp16 by a rule, to find the one at fault",
}


def advice(model: ir.Model, refusal: Refusal) -> str:
    for words, fix in _BY_WORDS:
        if words in refusal.why:
            return fix
    op = refusal.op or (n.op_type if (n := _named(model, refusal.node)) is not None else "")
    return _BY_OP.get(op, _BY_KIND[refusal.kind])


def origin(model: ir.Model, name: str) -> str:
    """The line of the model's source that a node comes from, as the emitter wrote it down; "" where nothing is known."""
    node = _named(model, name)
    return "" if node is None or not node.doc_string else node.doc_string


def _named(model: ir.Model, name: str) -> ir.Node | None:
    return next((n for n in model.graph if name and n.name == name), None)
