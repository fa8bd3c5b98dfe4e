"""Derivatives of layers by their input, with ops that engines have. PyTorch has its own for most other ops. The
functions hold no tensors of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_ATEN = torch.ops.aten


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, stride: list[int],
                         padding: list[int], dilation: list[int], transposed: bool, output_padding: list[int],
                         groups: int, output_mask: list[bool]) -> tuple[Tensor | None, None, None]:
    """By the input: the convolution that goes the other way."""
    if output_mask[1] or output_mask[2]:
        raise NotImplementedError("derivatives by weights")
    if transposed:
        return _ATEN.convolution(grad, weight, None, stride, padding, dilation, False, [0] * len(stride),
                                 groups), None, None
    left = [n - ((g - 1) * s - 2 * p + d * (k - 1) + 1) for n, g, s, p, d, k in
            zip(x.shape[2:], grad.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)]
    return _ATEN.convolution(grad, weight, None, stride, padding, dilation, True, left, groups), None, None


def _back(grad: Tensor, x: Tensor, axes: list[Callable]) -> Tensor:
    """Of an op that is one matrix per axis, of the last two. axes: each what the op does to rows [1,n,n] of such a
    length."""
    rows, columns = (axis(torch.eye(n, dtype=grad.dtype)[None])[0] for axis, n in zip(axes, x.shape[-2:], strict=True))
    return rows @ grad @ columns.mT


def avg_pool2d_backward(grad: Tensor, x: Tensor, kernel: list[int], stride: list[int], padding: list[int],
                        ceil_mode: bool, count_include_pad: bool, divisor: int | None) -> Tensor:
    if divisor is not None:
        raise NotImplementedError("a divisor of its own")
    kernel, padding = (v * 2 if len(v) == 1 else v for v in (kernel, padding))
    stride = (stride or kernel) * (2 if len(stride or kernel) == 1 else 1)
    return _back(grad, x, [lambda e, k=k, s=s, p=p: F.avg_pool1d(e, k, s, p, ceil_mode, count_include_pad)
                           for k, s, p in zip(kernel, stride, padding, strict=True)])


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    return _back(grad, x, [lambda e, n=n: F.adaptive_avg_pool1d(e, n) for n in grad.shape[-2:]])


def replication_pad2d_backward(grad: Tensor, x: Tensor, padding: list[int]) -> Tensor:
    return _back(grad, x, [lambda e, p=p: F.pad(e, p, "replicate") for p in (padding[2:], padding[:2])])


DERIVATIVES = {
    _ATEN.convolution_backward.default: convolution_backward,
    _ATEN.avg_pool2d_backward.default: avg_pool2d_backward,
    _ATEN._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    _ATEN.replication_pad2d_backward.default: replication_pad2d_backward,
}
