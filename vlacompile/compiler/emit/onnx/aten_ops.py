"""ONNX translations of ATen ops whose torch.onnx translation not every engine supports, or cancels digits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20 as op
from onnxscript.function_libs.torch_lib.ops import core


def _group_norm(x, groups: int, weight=None, bias=None, eps: float = 1e-5, cudnn_enabled: bool = True):
    """As InstanceNormalization whose channels are the groups. GroupNormalization has a scale per channel from opset 21
    on, but TensorRT below 10.15 expects one per group (NvInfer.h of 10.16, addNormalization): it would reject the
    engine on the board."""
    shape = tuple(x.shape)
    grouped = op.Reshape(x, _numbers((shape[0], groups, math.prod(shape[1:]) // groups), np.int64))
    one, zero = (op.CastLike(_numbers((n,) * groups, np.float32), x) for n in (1.0, 0.0))
    y = op.Reshape(op.InstanceNormalization(grouped, one, zero, epsilon=eps), _numbers(shape, np.int64))
    per_channel = _numbers((shape[1], *(1,) * (len(shape) - 2)), np.int64)
    if weight is not None:
        y = op.Mul(y, op.Reshape(weight, per_channel))
    return y if bias is None else op.Add(y, op.Reshape(bias, per_channel))


def _clamp(x, min: float | None = None, max: float | None = None):
    """Floating point: Clip with two bounds, Max or Min with one, as ONNX Runtime's (1.32) Clip limits infinity to the
    largest finite number if the other bound is missing."""
    if x.dtype.is_integer() and any(isinstance(end, float) for end in (min, max)):
        x = op.Cast(x, to=ir.DataType.FLOAT)
    dtype = x.dtype.numpy()
    if min is not None and max is not None and x.dtype.is_floating_point():
        return op.Clip(x, _numbers(min, dtype), _numbers(max, dtype))
    x = x if min is None else op.Max(x, _numbers(min, dtype))
    return x if max is None else op.Min(x, _numbers(max, dtype))


def _extreme(reduction: str):
    """Of all elements where no dimension is named, which torch.onnx requires."""

    def translate(x, dim: Sequence[int] | int = (), keepdim: bool = False):
        reduce = getattr(op, reduction)
        if not len(x.shape):
            return op.Identity(x)
        axes = [dim] if isinstance(dim, int) else list(dim)
        if not axes:
            return reduce(x, keepdims=int(keepdim))
        return reduce(x, op.Constant(value=ir.tensor(np.array(axes, np.int64))), keepdims=int(keepdim))

    return translate


def _conv3d(x, weight, bias=None, *how, **settings):
    """torch.onnx (onnxscript 0.7.2) gives one without a bias zeros of a wrong shape."""
    if bias is None:
        bias = op.CastLike(_numbers((0.0,) * weight.shape[0], np.float32), x)
    return core.aten_conv3d(x, weight, bias, *how, **settings)


def _divide(x, y, rounding_mode: str | None = None):
    """Integers as integers: torch.onnx divides them in f32, which holds them up to 2^24."""
    if not (x.dtype.is_integer() and rounding_mode == "trunc"):
        return core.aten_div_mode(x, y, rounding_mode)
    return op.Div(x, _numbers(y, x.dtype.numpy()) if isinstance(y, int) else op.CastLike(y, x))


def _log1p(x):
    """log(1 + x) loses the digits of a small x in the sum. What the sum rounded to is y = (1 + x) - 1, and
    log(1 + y) / y hardly differs from log(1 + x) / x (Kahan; Goldberg 1991, theorem 4)."""
    x, one, near = _beside_one(x)
    total = op.Add(x, one)
    rounded = op.Sub(total, one)
    log = op.Log(total)
    corrected = op.Where(op.Equal(total, one), x, op.Mul(log, op.Div(x, rounded)))
    return op.Where(near, corrected, log)


def _expm1(x):
    """exp(x) - 1 in the same way: (u - 1) / log(u) of the rounded u = exp(x), times x."""
    x, one, near = _beside_one(x)
    power = op.Exp(x)
    less = op.Sub(power, one)
    corrected = op.Where(op.Equal(power, one), x, op.Mul(less, op.Div(x, op.Log(power))))
    return op.Where(near, corrected, less)


def _beside_one(x):
    """x as a floating-point number, one in its dtype, and where x is so small that digits are lost beside it."""
    x = op.Cast(x, to=ir.DataType.FLOAT) if x.dtype.is_integer() else x
    dtype = x.dtype.numpy()
    return x, _numbers(1.0, dtype), op.Less(op.Abs(x), _numbers(0.5, dtype))


def _matmul(x, y):
    """A vector on the right as a matrix of one column: ONNX Runtime (1.32) fuses MatMul with the Transpose of its left
    operand, and then computes another product if the right one is a vector."""
    if len(y.shape) != 1 or len(x.shape) == 1:
        return op.MatMul(x, y)
    last = _numbers((-1,), np.int64)
    return op.Squeeze(op.MatMul(x, op.Unsqueeze(y, last)), last)


def _numbers(of: tuple | float, dtype: type):
    return op.Constant(value=ir.tensor(np.array(of, dtype)))


ATEN = {
    torch.ops.aten.group_norm.default: _group_norm,
    torch.ops.aten.clamp.default: _clamp,
    torch.ops.aten.conv3d.default: _conv3d,
    torch.ops.aten.div.Tensor_mode: _divide,
    torch.ops.aten.div.Scalar_mode: _divide,
    torch.ops.aten.amax.default: _extreme("ReduceMax"),
    torch.ops.aten.amin.default: _extreme("ReduceMin"),
    torch.ops.aten.log1p.default: _log1p,
    torch.ops.aten.expm1.default: _expm1,
    torch.ops.aten.matmul.default: _matmul,
    torch.ops.aten.mv.default: _matmul,
}
