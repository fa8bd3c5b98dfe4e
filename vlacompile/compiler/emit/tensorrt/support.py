"""Which ONNX ops and element types the parser of an older TensorRT supports, so that a stage is rejected here, with the
line of the model, instead of on the board.

NVIDIA's compiler that runs without a board (check/) has the version of JetPack 7.2, not that of JetPack 6.2. The table
follows onnx-tensorrt's docs/operators.md at 10.1-GA, and its source where that supports more (Clip); its change log
lists nothing that 10.2 or 10.3 removed.
"""

from __future__ import annotations

import onnx_ir as ir

from vlart.errors import EmitError

LISTED = (10, 3)  # the newest version that the table describes; later ones support more
_FLOATS, _INTS = ("FLOAT", "FLOAT16", "BFLOAT16"), ("INT32", "INT64")
OPS = {
    _FLOATS: "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Conv ConvTranspose Cos Cosh "
             "CumSum Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
             "HardSigmoid HardSwish Hardmax IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax LpNormalization "
             "LpPool MatMul MaxPool MeanVarianceNormalization PRelu Pow QuantizeLinear RNN RandomNormal "
             "RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize Round Scan Selu Sigmoid Sin Sinh "
             "Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample",
    _FLOATS[:2]: "DeformConv GridSample InstanceNormalization Mish NonMaxSuppression NonZero RoiAlign",
    _FLOATS + _INTS: "Abs Add ArgMax ArgMin Clip DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual "
                     "Max Mean Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax "
                     "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND "
                     "Shrink Sign SpaceToDepth Sub Sum TopK",
    _FLOATS + _INTS + ("BOOL",): "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements "
                                 "GatherND Identity If Loop OneHot Reshape ReverseSequence Shape Size Slice Split "
                                 "Squeeze Tile Transpose Trilu Unsqueeze Where",
    _FLOATS + _INTS + ("BOOL", "UINT8"): "Cast CastLike",
    _FLOATS + _INTS + ("INT8",): "Gelu",
    ("INT8", "INT4"): "DequantizeLinear",
    ("BOOL",): "And Not Or Xor",
}
_TYPES = {op: types for types, ops in OPS.items() for op in ops.split()}
_VALUE = {"Where": 1}  # the input that decides the element type, if not the first

BYTES = "cast bytes to floats before any other op, and do not cast to bytes"
REWRITES = {  # replacements for unsupported ops
    "NonZero": "write the selection with where() or a constant index: its size depends on values",
    "Unique": "its size depends on values: compute it outside the policy",
    "QuickGelu": "write x * sigmoid(1.702 * x)",
    "MatMulNBits": "build the bundle for a board: it is an op of ONNX Runtime",
    "DynamicQuantizeLinear": "build the bundle for a board: then ranges are static",
    "DynamicQuantizeMatMul": "build the bundle for a board: then ranges are static",
    "Pow": "raise floating-point numbers to that power, or multiply integers",
    "MatMul": "multiply matrices of floating-point numbers, which hold integers up to 2^24 exactly",
    "Conv": "convolve floating-point numbers, which hold integers up to 2^24 exactly",
    "Cast": BYTES,
    "CumSum": "sum floating-point numbers, or multiply by a triangular matrix of ones",
    "Det": "write the determinant out (of 2x2 and 3x3 it is a sum of products), or compute it outside the policy",
    "DFT": "write the transform as two products with constant matrices of cosines and sines",
    "GroupNormalization": "normalise instances of groups, and scale channels behind",
    "MaxUnpool": "keep a mask of the maxima and multiply by it, or upsample",
    "SplitToSequence": "index the parts instead of iterating over a tensor",
    "Bernoulli": "make the random numbers an input",
    "RandomNormal": "make the random numbers an input",
}
OTHERWISE = ("rewrite that line with ops that TensorRT has "
              "(https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md), "
              "or give the stage to another engine")


def is_listed(tensorrt: str) -> bool:
    """Whether the table describes this version."""
    return tuple(int(n) for n in tensorrt.split(".")[:2]) <= LISTED


def require_supported(stage: str, model: ir.Model, tensorrt: str) -> None:
    """tensorrt: the version on the board, as "10.3.0". Raises EmitError for the first node that it does not support."""
    if not is_listed(tensorrt):
        return
    for node in model.graph:
        why = _refusal(node)
        if why is not None:
            line = f", {node.doc_string}" if node.doc_string else ""
            raise EmitError(f'TensorRT {tensorrt} does not support the stage "{stage}"',
                            where=f'stage "{stage}", node "{node.name}"{line}', why=why,
                            fix=REWRITES.get(node.op_type, OTHERWISE) + "; or build it for jetpack-7.2")


def _refusal(node: ir.Node) -> str | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _TYPES:
        return f"it has no {node.op_type}"
    value = node.inputs[_VALUE.get(node.op_type, 0)] if node.inputs else None
    if value is not None and value.dtype is not None and value.dtype.name not in _TYPES[node.op_type]:
        return f"its {node.op_type} does not support {value.dtype.name}"
    if node.op_type == "Resize" and node.attributes.get_int("antialias", 0):
        return "its Resize has no antialiasing"
    if node.op_type == "Cast" and ir.DataType.UINT8 in (value.dtype, node.attributes.get_int("to")):
        return _refusal_of_bytes(node, value)
    if node.op_type == "DequantizeLinear" and value.dtype == ir.DataType.INT4 and value.shape[-1] % 2:
        return f"rows of 4-bit values must have an even length, not {value.shape[-1]}"
    return None


def _refusal_of_bytes(node: ir.Node, value: ir.Value) -> str | None:
    made = ir.DataType(node.attributes.get_int("to"))
    if made == ir.DataType.UINT8 and not node.outputs[0].is_graph_output():
        return "it supports bytes only as inputs and outputs of a stage"
    other = made if value.dtype == ir.DataType.UINT8 else value.dtype
    if other is not None and other.name not in ("FLOAT", "FLOAT16"):
        return f"it converts bytes to and from FLOAT and FLOAT16 alone, not {other.name}"
    return None
