"""Facts about single graph nodes: size, cost, what kind of op it is. Read off PyTorch's own
tags and counters, so that there is no table of op names to keep."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from vlacompile.compiler.graph.delay import is_delay

# Elements up to which an element-wise op is cheaper to repeat than to keep (one 64 KiB f32 tensor).
CHEAP_ELEMENTS = 16384


def tensor_bytes(val) -> int:
    """Bytes of a tensor, or of all tensors of a tuple."""
    if isinstance(val, torch.Tensor):
        return math.prod(int(d) for d in val.shape) * val.element_size()
    if isinstance(val, (list, tuple)):
        return sum(tensor_bytes(v) for v in val)
    return 0


def node_bytes(node: Node) -> int:
    return tensor_bytes(node.meta.get("val"))


def elements(node: Node) -> int:
    val = node.meta.get("val")
    return math.prod(int(d) for d in val.shape) if isinstance(val, torch.Tensor) else 0


def flops(node: Node) -> int:
    """Floating-point operations of one node: matmul, convolution and attention, 2 per multiply-add
    (torch.utils.flop_counter)."""
    if node.op != "call_function":
        return 0
    if hasattr(node.target, "flops"):  # a rolled loop knows its own
        return node.target.flops
    if not isinstance(node.target, torch._ops.OpOverload) or is_free(node) or is_pointwise(node):
        return 0
    if "flops" not in node.meta:  # a function of the shapes, which copies of the node share
        node.meta["flops"] = _attention_flops(node) if node.target is _ATTENTION else _counted(
            node.target, _frozen(node.args), _frozen(node.kwargs))
    return node.meta["flops"]


def _attention_flops(node: Node) -> int:
    """By shapes: whether an attention has a kernel depends on its mask and on the device."""
    names = [a.name for a in _ATTENTION._schema.arguments]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    query, key, value = (tuple(given[n].meta["val"].shape) for n in ("query", "key", "value"))
    return 2 * math.prod(query) * key[-2] + 2 * math.prod(query[:-1]) * value[-2] * value[-1]


def _frozen(arg):
    """An argument as something to look up: a tensor is its shape, strides and type."""
    if isinstance(arg, Node):
        return _frozen(arg.meta["val"])
    if isinstance(arg, torch.Tensor):
        return _Shaped(tuple(map(int, arg.shape)), tuple(map(int, arg.stride())), arg.dtype)
    if isinstance(arg, dict):
        return tuple((k, _frozen(v)) for k, v in sorted(arg.items()))
    return tuple(map(_frozen, arg)) if isinstance(arg, (list, tuple)) else arg


@dataclass(frozen=True)
class _Shaped:
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


@functools.lru_cache(maxsize=4096, typed=True)
def _counted(target, args: tuple, kwargs: tuple) -> int:
    """What PyTorch's counter says of one op; equal ops of a long graph are counted once."""

    def thawed(arg):
        if isinstance(arg, _Shaped):
            return torch.empty_strided(arg.shape, arg.strides, dtype=arg.dtype, device="meta")
        return [thawed(a) for a in arg] if isinstance(arg, tuple) else arg

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        target(*map(thawed, args), **{k: thawed(v) for k, v in kwargs})
    return counter.get_total_flops()


def is_pointwise(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


def is_view(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def is_move(node: Node) -> bool:
    """True when the op computes no number: views, casts, copies, concatenations, picks, delays."""
    if node.target is operator.getitem or is_delay(node) or is_view(node):
        return True
    return isinstance(node.target, torch._ops.OpOverload) and node.target.overloadpacket in _COPIES


def is_step(node: Node) -> bool:
    """True when the smallest change of a floating-point operand may change the result by a step: comparisons and
    roundings, and what finds places."""
    if node.op != "call_function" or not any(t.is_floating_point() for n in node.all_input_nodes
                                             for t in _tensors(n.meta.get("val"))):
        return False
    return getattr(node.target, "overloadpacket", None) in _ROUNDINGS or any(
        not t.is_floating_point() and not t.is_complex() for t in _tensors(node.meta.get("val")))


def _tensors(val) -> list[torch.Tensor]:
    return [val] if isinstance(val, torch.Tensor) else [v for v in val or () if isinstance(v, torch.Tensor)]


def is_random(node: Node) -> bool:
    """True when the op draws random numbers as it stands (dropout in eval mode does not)."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    names = [a.name for a in target._schema.arguments]
    bound = dict(zip(names, node.args, strict=False)) | node.kwargs
    if "dropout_p" in names:
        return float(bound.get("dropout_p", 0.0)) != 0.0
    if "training" in names:  # PyTorch's default is False
        return bool(bound.get("training", False))
    return not ("train" in names and bound.get("train") is False)


def is_free(node: Node) -> bool:
    """True when repeating the op on the consumer's side costs next to nothing: views, casts, copies,
    concatenations, constants, and element-wise ops on small tensors."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if is_view(node) or not node.all_input_nodes:
        return not is_random(node)
    if target.overloadpacket in _COPIES:
        return True
    return is_pointwise(node) and elements(node) <= CHEAP_ELEMENTS and not is_random(node)


_ATEN = torch.ops.aten
_ATTENTION = _ATEN.scaled_dot_product_attention.default
_ROUNDINGS = frozenset({_ATEN.round, _ATEN.floor, _ATEN.ceil, _ATEN.trunc, _ATEN.fix, _ATEN.sign, _ATEN.sgn, _ATEN.frac,
                        _ATEN.fmod, _ATEN.remainder, _ATEN.floor_divide, _ATEN.heaviside})
_COPIES = frozenset({_ATEN.clone, _ATEN._to_copy, _ATEN.to, _ATEN.cat, _ATEN.stack, _ATEN.contiguous, _ATEN.reshape,
                     _ATEN._unsafe_view, _ATEN.repeat, _ATEN.flatten, _ATEN.constant_pad_nd, _ATEN.copy,
                     _ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.new_zeros, _ATEN.new_ones,
                     _ATEN.new_full})
