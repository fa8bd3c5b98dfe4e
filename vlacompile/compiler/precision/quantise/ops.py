"""Ops of quantised stage graphs. The eager kernels here define their numerics: calibration, golden vectors and the
simulation of other engines run them. `compiler/emit/onnx/quantised_ops.py` emits them as ONNX.

Rounding is to the nearest even number, as ONNX's QuantizeLinear does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula


@custom_op("vlacompile::quantise_dequantise", mutates_args=())
def quantise_dequantise(x: Tensor, scale: float, zero_point: int, unsigned: bool) -> Tensor:
    """Rounds x to 8 bits and back: u8 (0..255) or i8 (-128..127), one scale and zero point per tensor."""
    low, high = (0, 255) if unsigned else (-128, 127)
    step = torch.tensor(scale, dtype=x.dtype)
    q = torch.clamp(torch.round(x / step) + zero_point, low, high)
    return (q - zero_point) * step


@custom_op("vlacompile::dequantise", mutates_args=())
def dequantise(q: Tensor, scale: Tensor, axis: int, block: int) -> Tensor:
    """q (i8; 4-bit values if block > 0) times its scale. block 0: per channel, one scale per index of `axis`, scale
    [n]. block > 0: one scale per `block` elements along `axis`; scale has q's shape with that dimension divided by
    block."""
    if block:
        return q.to(scale.dtype) * scale.repeat_interleave(block, axis).narrow(axis, 0, q.shape[axis])
    return q.to(scale.dtype) * scale.reshape([-1 if d == axis else 1 for d in range(q.dim())])


@custom_op("vlacompile::conv_int8", mutates_args=())
def conv_int8(x: Tensor, x_scale: float, weight: Tensor, scale: Tensor, bias: Tensor | None, stride: list[int],
              padding: list[int], dilation: list[int], groups: int, y_scale: float, y_zero: int, low: float,
              high: float) -> Tensor:
    """An integer convolution. x is u8 * x_scale (see `quantise_dequantise`), weight i8 with a scale per output channel,
    bias i32 in units of the product of both scales; the sum is clipped to low..high and requantised to u8 by y_scale
    and y_zero. (QLinearConv after which a Clip is fused: one multiplication in f32, then rounding.)"""
    convolve = F.conv1d if x.dim() == 3 else F.conv2d
    q = torch.round(x / _f32(x_scale)).double()
    total = convolve(q, weight.double(), None if bias is None else bias.double(), stride, padding, dilation, groups)
    steps = (_f32(x_scale) * scale / _f32(y_scale)).reshape(-1, *[1] * (x.dim() - 2))
    q = torch.round(torch.clamp(total.float() * steps, -y_zero, 255 - y_zero))
    return torch.clamp(q * _f32(y_scale), low, high)


@custom_op("vlacompile::add_int8", mutates_args=())
def add_int8(a: Tensor, b: Tensor, a_scale: float, a_zero: int, b_scale: float, b_zero: int, y_scale: float,
             y_zero: int,
             low: float, high: float) -> Tensor:
    """a + b of two u8 values, clipped to low..high and requantised to u8. (com.microsoft QLinearAdd, with fused
    multiply-adds.)"""
    a_ratio, b_ratio = _f32(a_scale) / _f32(y_scale), _f32(b_scale) / _f32(y_scale)
    fixed = _f32(y_zero) - (a_ratio * a_zero + b_ratio * b_zero)
    qa, qb = torch.round(a / _f32(a_scale)) + a_zero, torch.round(b / _f32(b_scale)) + b_zero
    inner = (qb.double() * b_ratio.double() + fixed.double()).float()
    q = torch.clamp(torch.round((qa.double() * a_ratio.double() + inner.double()).float()), 0, 255)
    return torch.clamp((q - y_zero) * _f32(y_scale), low, high)


def _f32(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float32)


@custom_op("vlacompile::linear_int8", mutates_args=())
def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x [...,K] is quantised to u8 by its own range, multiplied by weight i8[K,N] in integers, then by both scales,
    plus bias [N]. (com.microsoft DynamicQuantizeMatMul; its exact sums are rounded to f32 here.)"""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = torch.where(high > low, (high - low) / 255, torch.ones(()))
    zero = torch.round(torch.clamp(-low / step, 0, 255))
    q = torch.clamp(torch.round(x / step) + zero, 0, 255) - zero
    y = (q @ weight.to(x.dtype)) * (step * scale)
    return y if bias is None else y + bias


@custom_op("vlacompile::linear_int4", mutates_args=())
def linear_int4(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, features: int, block: int) -> Tensor:
    """x [...,K] is quantised to i8 per row and block (largest magnitude 127) and multiplied by 4-bit weights packed as
    in `pack_int4`: u8[N,blocks,block/2], scale f32[N,blocks]. (com.microsoft MatMulNBits, accuracy_level 4.)"""
    blocks = weight.shape[1]
    padded = F.pad(x, (0, blocks * block - features)).reshape(*x.shape[:-1], blocks, block)
    step = padded.abs().amax(-1, keepdim=True) / 127
    q = torch.round(padded * torch.where(step > 0, 1 / step, torch.zeros(()))) * step
    w = unpack_int4(weight).to(x.dtype) * scale[..., None]
    y = q.flatten(-2) @ w.flatten(1).T
    return y if bias is None else y + bias


@custom_op("vlacompile::embedding_int4", mutates_args=())
def embedding_int4(weight: Tensor, scale: Tensor, ids: Tensor, block: int) -> Tensor:
    """Rows of a table of 4-bit values, two per byte: u8[V,K/2], scale f32[V,ceil(K/block)]."""
    rows = unpack_int4(weight[ids])
    return rows.to(scale.dtype) * scale[ids].repeat_interleave(block, -1)[..., : rows.shape[-1]]


def pack_int4(q: Tensor, block: int) -> Tensor:
    """i8[N,K] in -8..7 -> u8[N,blocks,block/2]: two per byte, the even index in the low nibble, with an offset of 8;
    the last block is padded with zeros."""
    padded = F.pad(q, (0, -q.shape[1] % block)).reshape(q.shape[0], -1, block // 2, 2).to(torch.int16) + 8
    return (padded[..., 0] + 16 * padded[..., 1]).to(torch.uint8)


def unpack_int4(packed: Tensor) -> Tensor:
    """u8[...,block/2] -> i8[...,block]"""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2).to(torch.int8) - 8


@quantise_dequantise.register_fake
def _(x, scale, zero_point, unsigned):
    return torch.empty_like(x)


@dequantise.register_fake
def _(q, scale, axis, block):
    return torch.empty_like(q, dtype=scale.dtype)


@conv_int8.register_fake
def _(x, x_scale, weight, scale, bias, stride, padding, dilation, groups, y_scale, y_zero, low, high):
    convolve = F.conv1d if x.dim() == 3 else F.conv2d
    return convolve(x, torch.empty_like(weight, dtype=x.dtype), None, stride, padding, dilation, groups)


@add_int8.register_fake
def _(a, b, a_scale, a_zero, b_scale, b_zero, y_scale, y_zero, low, high):
    return torch.empty(torch.broadcast_shapes(a.shape, b.shape), dtype=a.dtype, device=a.device)


@linear_int8.register_fake
def _(x, weight, scale, bias):
    return x.new_empty((*x.shape[:-1], weight.shape[1]))


@linear_int4.register_fake
def _(x, weight, scale, bias, features, block):
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@embedding_int4.register_fake
def _(weight, scale, ids, block):
    return scale.new_empty((*ids.shape, 2 * weight.shape[1]))


OPS = torch.ops.vlacompile

# Gradients of an op's result by its activations: rounding and clipping are straight-through (Bengio et al. 2013, arXiv
# 1308.3432); weights are constant. `error_attribution.py` needs them.


def _keeping(*positions: int):
    """setup_context that saves the arguments which the backward pass needs."""

    def setup(ctx, inputs, output):
        ctx.kept = tuple(inputs[i] for i in positions)
    return setup


def _conv_back(ctx, g: Tensor):
    x, weight, scale, stride, padding, dilation, groups = ctx.kept
    w = weight.to(g.dtype) * scale.reshape(-1, *[1] * (weight.dim() - 1))
    back = torch.nn.grad.conv1d_input if x.dim() == 3 else torch.nn.grad.conv2d_input
    return back(x.shape, w, g, stride, padding, dilation, groups), *[None] * 12


def _int4_back(ctx, g: Tensor):
    weight, scale, features = ctx.kept
    w = (unpack_int4(weight).to(scale.dtype) * scale[..., None]).flatten(1)[:, :features]
    return g @ w.to(g.dtype), *[None] * 5


def _int8_back(ctx, g: Tensor):
    weight, scale = ctx.kept
    return (g * scale) @ weight.to(g.dtype).T, None, None, None


def _add_back(ctx, g: Tensor):
    return *(g.sum_to_size(x.shape) for x in ctx.kept), *[None] * 8


for _op, _back, _kept in (
        (OPS.quantise_dequantise, lambda ctx, g: (g, None, None, None), ()), (OPS.linear_int8, _int8_back, (1, 2)),
        (OPS.conv_int8, _conv_back, (0, 2, 3, 5, 6, 7, 8)), (OPS.linear_int4, _int4_back, (1, 2, 4)),
        (OPS.add_int8, _add_back, (0, 1))):
    torch.library.register_autograd(_op.default, _back, setup_context=_keeping(*_kept))


@register_flop_formula(OPS.conv_int8)
def _(x, x_scale, weight, *args, out_shape=None, **kwargs):
    return 2 * torch.Size((out_shape[0], *out_shape[2:])).numel() * torch.Size(weight).numel()


@register_flop_formula(OPS.linear_int8)
def _(x, weight, scale, bias, *args, out_shape=None, **kwargs):
    rows = torch.Size(x[:-1]).numel()
    return 2 * rows * weight[0] * weight[1]


@register_flop_formula(OPS.linear_int4)
def _(x, weight, scale, bias, features, block, *args, out_shape=None, **kwargs):
    return 2 * torch.Size(x[:-1]).numel() * weight[0] * features
