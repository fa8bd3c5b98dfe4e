"""What is done to booleans, written with the ops that engines have for them: logic, and moves of whole elements.

Each rule takes a call of an op and gives a function of the op's arguments, or None where the op stays. The functions
hold no tensors of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import Node

_ATEN = torch.ops.aten


def _is_bool(value) -> bool:
    val = value.meta["val"] if isinstance(value, Node) else value
    return val.dtype is torch.bool if isinstance(val, Tensor) else isinstance(val, bool)


def _both(function: Callable) -> Callable[[Node], Callable | None]:
    """Of two booleans, one of which may be a Python number."""

    def rule(node: Node) -> Callable | None:
        if not _is_bool(node.args[0]):
            return None
        if _is_bool(node.args[1]):
            return lambda a, b, **_: function(*torch.broadcast_tensors(a, _as_tensor(b, a)))
        return None if isinstance(node.args[1], Node) else _beside_number(node)

    return rule


def _as_tensor(value: Tensor | bool, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)


def _beside_number(node: Node) -> Callable | None:
    """A comparison with a number: true and false are 1 and 0."""
    compare = getattr(torch, node.target.overloadpacket.__name__, None)
    if node.meta["val"].dtype is not torch.bool or compare is None:
        return None
    true, false = (bool(compare(torch.tensor(v), node.args[1])) for v in (True, False))
    if true == false:
        return lambda a, _: torch.full_like(a, true)
    return lambda a, _: a.clone() if true else a.logical_not()


def _where(node: Node) -> Callable | None:
    if not _is_bool(node):
        return None
    return lambda mask, a, b: (mask & a) | (mask.logical_not() & b)


def _masked_fill(node: Node) -> Callable | None:
    if not _is_bool(node):
        return None

    def fill(x: Tensor, mask: Tensor, value: Tensor | bool) -> Tensor:
        if isinstance(value, Tensor):
            return (mask & value) | (mask.logical_not() & x)
        return x | mask if value else x & mask.logical_not()

    return fill


def _in_numbers(node: Node) -> Callable | None:
    """In i32: engines have the op for numbers alone."""
    results = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else (node.meta["val"],)
    if not _is_bool(node.args[0]):
        return None
    number = lambda a: a.to(torch.int32) if isinstance(a, Tensor) and a.dtype is torch.bool else a
    boolean = [isinstance(r, Tensor) and r.dtype is torch.bool for r in results]

    def compute(*args, **kwargs):
        args = [[number(b) for b in a] if isinstance(a, (list, tuple)) else number(a) for a in args]
        found = node.target(*args, **{k: number(v) for k, v in kwargs.items()})
        if isinstance(found, Tensor):
            return found != 0 if boolean[0] else found
        return tuple(f != 0 if b else f for f, b in zip(found, boolean, strict=True))

    return compute


def _masked_write(node: Node) -> Callable | None:
    """x[mask] = values, where `values` does not depend on how many elements the mask chooses, is a choice by the mask:
    everything has a shape."""
    x, indices, values = node.args[:3]
    masks = [k for k, i in enumerate(indices) if i is not None]
    if len(masks) != 1 or not _is_bool(indices[masks[0]]):
        return _in_numbers(node) if not any(i is not None and _is_bool(i) for i in indices) else None
    before, wide = masks[0], indices[masks[0]].meta["val"].dim()
    behind = x.meta["val"].dim() - before - wide
    shape = values.meta["val"].shape
    if len(shape) > behind and shape[len(shape) - behind - 1] != 1:
        return None

    def write(x: Tensor, indices: list, values: Tensor, add: bool = False) -> Tensor:
        mask = indices[before]
        mask = mask.reshape(*mask.shape, *(1,) * behind)
        if len(shape) > behind:
            at = len(shape) - behind - 1
            values = values.reshape(*shape[:at], *(1,) * wide, *shape[at + 1:])
        values = values.to(x.dtype)
        if x.dtype is torch.bool:
            return (mask & values) | (mask.logical_not() & x)
        return torch.where(mask, x + values if add else values, x)

    return write


_NUMBERS = (_ATEN.sort, _ATEN.topk, _ATEN.max, _ATEN.min, _ATEN.amax, _ATEN.amin, _ATEN.argmax, _ATEN.argmin,
            _ATEN.cummax, _ATEN.cummin, _ATEN.argsort, _ATEN.msort, _ATEN.scatter, _ATEN.constant_pad_nd, _ATEN.pad,
            _ATEN.index_fill, _ATEN.index_copy, _ATEN.select_scatter, _ATEN.slice_scatter, _ATEN.tril, _ATEN.triu,
            _ATEN.sign, _ATEN.sub, _ATEN.prod, _ATEN.fill, _ATEN.masked_scatter)
BOOLEANS: dict[object, Callable[[Node], Callable | None]] = {
    _ATEN.eq: _both(lambda a, b: torch.logical_xor(a, b).logical_not()),
    _ATEN.ne: _both(torch.logical_xor),
    _ATEN.lt: _both(lambda a, b: a.logical_not() & b),
    _ATEN.le: _both(lambda a, b: a.logical_not() | b),
    _ATEN.gt: _both(lambda a, b: a & b.logical_not()),
    _ATEN.ge: _both(lambda a, b: a | b.logical_not()),
    _ATEN.add: _both(torch.logical_or),
    _ATEN.mul: _both(torch.logical_and),
    _ATEN.maximum: _both(torch.logical_or),
    _ATEN.minimum: _both(torch.logical_and),
    _ATEN.where: _where,
    _ATEN.masked_fill: _masked_fill,
    _ATEN.index_put: _masked_write,
    **dict.fromkeys(_NUMBERS, _in_numbers),
}
