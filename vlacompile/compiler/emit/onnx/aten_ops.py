"""ONNX translations of ATen ops whose torch.onnx translation not every engine supports."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20 as op


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


def _numbers(of: tuple | float, dtype: type):
    return op.Constant(value=ir.tensor(np.array(of, dtype)))


ATEN = {
    torch.ops.aten.group_norm.default: _group_norm,
    torch.ops.aten.clamp.default: _clamp,
}
