"""ONNX translations of the ops in `compiler/precision/quantise/ops.py`, called by torch.onnx."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.defs import OpSchema
from onnxscript import opset20 as op
from onnxscript import opset21 as op21
from onnxscript.values import Op, Opset

from vlacompile.compiler.precision.quantise.ops import OPS

_MS = Opset("com.microsoft", 1)


def _contributed(name: str, inputs: str, **attributes: OpSchema.AttrType) -> Op:
    """A contrib op of ONNX Runtime, whose schema only that package has. inputs: names, "?" marks an optional one."""
    option = OpSchema.FormalParameterOption
    parameters = [OpSchema.FormalParameter(n.rstrip("?"), f"T_{n.rstrip('?')}",
                                           param_option=option.Optional if n.endswith("?") else option.Single)
                  for n in inputs.split()]
    types = [(p.type_str, ["tensor(float)", "tensor(uint8)", "tensor(int8)", "tensor(int64)"], "") for p in parameters]
    schema = OpSchema(name, _MS.domain, _MS.version, inputs=parameters,
                      type_constraints=[*types, ("T", ["tensor(float)"], "")],
                      outputs=[OpSchema.FormalParameter("y", "T")],
                      attributes=[OpSchema.Attribute(n, kind) for n, kind in attributes.items()])
    return Op(_MS, name, schema)


_INT = OpSchema.AttrType.INT
_DYNAMIC_MATMUL = _contributed("DynamicQuantizeMatMul", "x weight scale zero? bias?")
_MATMUL_BITS = _contributed("MatMulNBits", "x weight scale zero? group? bias?", K=_INT, N=_INT, bits=_INT,
                            block_size=_INT, accuracy_level=_INT)
_GATHER_BLOCKS = _contributed("GatherBlockQuantized", "weight ids scale zero?", bits=_INT, block_size=_INT,
                              gather_axis=_INT, quantize_axis=_INT)


def _quantise_dequantise(x, scale: float, zero_point: int, unsigned: bool):
    step = op.Constant(value=ir.tensor(np.array(scale, np.float32)))
    step = op.CastLike(step, x)
    zero = op.Constant(value=ir.tensor(np.array(zero_point, np.uint8 if unsigned else np.int8)))
    return op.DequantizeLinear(op.QuantizeLinear(x, step, zero), step, zero)


def _conv_int8(x, x_scale: float, weight, scale, bias, stride, padding, dilation, groups: int, y_scale: float,
               y_zero: int,
               low: float, high: float):
    w = op.DequantizeLinear(weight, scale, axis=0)
    if bias is not None:
        bias = op.DequantizeLinear(bias, op.Mul(scale, _number(x_scale)), axis=0)
    y = op.Conv(x, w, bias, strides=list(stride), pads=[*padding, *padding], dilations=list(dilation), group=groups)
    return _held(y, y_scale, y_zero, low, high)


def _add_int8(a, b, a_scale: float, a_zero: int, b_scale: float, b_zero: int, y_scale: float, y_zero: int, low: float,
              high: float):
    return _held(op.Add(a, b), y_scale, y_zero, low, high)


def _held(y, scale: float, zero: int, low: float, high: float):
    """Quantises and dequantises; clips before it where saturation to 8 bits would not do the same."""
    below, above = -zero * scale < low, (255 - zero) * scale > high
    if below or above:
        y = op.Clip(y, _number(low) if below else None, _number(high) if above else None)
    step, zero = _number(scale), op.Constant(value=ir.tensor(np.array(zero, np.uint8)))
    return op.DequantizeLinear(op.QuantizeLinear(y, step, zero), step, zero)


def _number(x: float):
    return op.Constant(value=ir.tensor(np.array(x, np.float32)))


def _dequantise(q, scale, axis: int, block: int):
    return op21.DequantizeLinear(q, scale, axis=axis,
                                 block_size=block) if block else op.DequantizeLinear(q, scale, axis=axis)


def _linear_int8(x, weight, scale, bias=None):
    return _DYNAMIC_MATMUL(x, weight, scale, None, bias)


def _linear_int4(x, weight, scale, bias=None, features: int = 0, block: int = 0):
    return _MATMUL_BITS(x, weight, scale, None, None, bias, K=features, N=weight.shape[0], bits=4, block_size=block,
                           accuracy_level=4)


def _embedding_int4(weight, scale, ids, block: int):
    return _GATHER_BLOCKS(weight, ids, scale, bits=4, block_size=block, gather_axis=0, quantize_axis=1)


QUANTISED = {
    OPS.quantise_dequantise.default: _quantise_dequantise,
    OPS.conv_int8.default: _conv_int8,
    OPS.add_int8.default: _add_int8,
    OPS.dequantise.default: _dequantise,
    OPS.linear_int8.default: _linear_int8,
    OPS.linear_int4.default: _linear_int4,
    OPS.embedding_int4.default: _embedding_int4,
}
