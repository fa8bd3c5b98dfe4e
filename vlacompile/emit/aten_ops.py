"""ONNX of ATen's ops that torch.onnx writes in a form which not every engine takes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20 as op


def _group_norm(x, groups: int, weight=None, bias=None, eps: float = 1e-5, cudnn_enabled: bool = True):
    """As the normalisation of instances whose channels are groups. GroupNormalization has a scale per channel from opset 21
    on, where TensorRT below 10.15 wants one per group (NvInfer.h of 10.16, addNormalization): it would refuse the engine,
    on the board."""
    shape = tuple(x.shape)
    grouped = op.Reshape(x, _numbers((shape[0], groups, math.prod(shape[1:]) // groups), np.int64))
    one, zero = (op.CastLike(_numbers((n,) * groups, np.float32), x) for n in (1.0, 0.0))
    y = op.Reshape(op.InstanceNormalization(grouped, one, zero, epsilon=eps), _numbers(shape, np.int64))
    per_channel = _numbers((shape[1], *(1,) * (len(shape) - 2)), np.int64)
    if weight is not None:
        y = op.Mul(y, op.Reshape(weight, per_channel))
    return y if bias is None else op.Add(y, op.Reshape(bias, per_channel))


def _numbers(of: tuple, dtype: type):
    return op.Constant(value=ir.tensor(np.array(of, dtype)))


ATEN = {torch.ops.aten.group_norm.default: _group_norm}
