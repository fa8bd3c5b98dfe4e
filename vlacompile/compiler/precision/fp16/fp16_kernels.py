"""One call in fp16: conversion of dtypes and numbers among its arguments, and its result.

Trial runs and the rewrite share these rules, so that both perform the same call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate, map_arg

from vlacompile.compiler.precision.fp16.attention_masks import saturated
from vlacompile.compiler.precision.fp16.op_kinds import (
    LARGEST,
    MASKED,
    ROUNDOFF,
    is_cast,
    is_f32,
    multiplies,
    packet,
    tensors,
)

_ATEN = torch.ops.aten
# Factory functions whose default dtype is f32.
_MAKERS = frozenset({_ATEN.full, _ATEN.zeros, _ATEN.ones, _ATEN.arange, _ATEN.scalar_tensor, _ATEN.linspace, _ATEN.eye,
                     _ATEN.empty})


def has_fp16_kernel(node: Node) -> bool:
    """False for a call that returns f32 although none of its inputs is f32: where(mask, 0.0, 1.0)."""
    return packet(node) in _MAKERS or is_cast(node) or any(is_f32(n) for n in node.all_input_nodes)


def fp16_arguments(node: Node, args: tuple, kwargs: dict, masked: bool) -> tuple[tuple, dict]:
    """args, kwargs: of the call, tensors (or nodes) already in fp16. masked: the node is a mask."""

    def lower(a):
        if a is torch.float32:
            return torch.float16
        return saturated(a) if masked and isinstance(a, float) and a < MASKED else a

    args, kwargs = map_aggregate(args, lower), dict(map_aggregate(kwargs, lower))
    if packet(node) in _MAKERS:
        kwargs["dtype"] = torch.float16
    return args, kwargs


def lost_number(node: Node, masked: bool) -> float | None:
    """A number among the arguments that is not representable in fp16, or None. Rounding errors do not count: every
    other value has them too."""
    lost: list[float] = []

    def look(a):
        if (isinstance(a, float) and a not in (float("inf"), float("-inf")) and not (masked and a < MASKED)
                and (abs(a) > LARGEST or abs(float(torch.tensor(a).half()) - a) > 4 * ROUNDOFF * abs(a))):
            lost.append(a)
        return a

    map_aggregate((node.args, node.kwargs), look)
    return lost[0] if lost else None


class NoKernel(Exception):
    """PyTorch has no fp16 kernel for the op on this device."""


def called_in_fp16(node: Node, values: Mapping[Node, object], masked: Collection[str],
                   margin: float = 1.0) -> tuple[torch.Tensor, ...] | None:
    """The results of one node in fp16 from f32 operands: operands and results rounded, sums in f32; None if a number
    among the arguments is not representable in fp16. margin: operands are rounded as if they were smaller by this
    factor. Raises NoKernel."""
    wide = multiplies(node)  # fp16 products are accumulated in f32: f32 kernels give the same and are faster

    def narrow(n: Node):
        value = values[n]
        if not (isinstance(value, torch.Tensor) and value.dtype == torch.float32):
            return value
        half = ((saturated(value) if n.name in masked else value) / margin).half() * margin
        return half.float() if wide else half

    args, kwargs = map_arg(node.args, narrow), map_arg(node.kwargs, narrow)
    if not wide:
        args, kwargs = fp16_arguments(node, args, kwargs, node.name in masked)
    try:
        return tuple(t.half() if t.dtype == torch.float32 else t for t in tensors(node.target(*args, **kwargs)))
    except NotImplementedError as error:
        raise NoKernel(str(error)) from error
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        return None


def off_by(node: Node, got: tuple[torch.Tensor, ...], want: object, masked: Collection[str]) -> list[torch.Tensor]:
    """Error of each result, f64, where `want` is finite; masked logits have none."""
    rows = []
    for a, b in zip(got, tensors(want), strict=True):
        a, b = a.double(), b.double()
        if node.name in masked:
            a, b = a.clamp(min=MASKED / 2), b.clamp(min=MASKED / 2)
        rows.append(torch.where(torch.isfinite(b), a - b, 0.0))
    return rows
