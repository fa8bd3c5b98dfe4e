"""What is done to integers, written with the ops that engines have for them. Each rule is as in `boolean_ops`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import Node

_ATEN = torch.ops.aten
_BITS_OF_SHIFTS = {torch.int32: 5, torch.int64: 6}  # binary digits of the largest shift that leaves anything
_LARGEST_POWER = 16


def is_integer(value) -> bool:
    val = value.meta["val"] if isinstance(value, Node) else value
    if not isinstance(val, Tensor):
        return isinstance(val, int) and not isinstance(val, bool)
    return not (val.is_floating_point() or val.is_complex() or val.dtype is torch.bool)


def _all_integers(node: Node) -> bool:
    return is_integer(node) and all(map(is_integer, node.args[:2]))


def _tensor(value: Tensor | int, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype)


def floor_divide(a: Tensor | int, b: Tensor | int, **_) -> Tensor:
    """Engines' divisions of integers round towards zero. No intermediate leaves the type."""
    if not isinstance(a, Tensor):
        a = _tensor(a, b)
    quotient = torch.div(a, b, rounding_mode="trunc")
    back = quotient * b
    if isinstance(b, Tensor):
        return quotient - (((back > a) & (b > 0)) | ((back < a) & (b < 0))).to(quotient.dtype)
    return quotient - (back > a if b > 0 else back < a).to(quotient.dtype)


def _floor_divide(node: Node) -> Callable | None:
    mode = node.kwargs.get("rounding_mode", "floor")
    if not _all_integers(node) or mode not in ("floor", "trunc"):
        return None
    if mode == "floor":
        return floor_divide
    return None if isinstance(node.args[0], Node) else (
        lambda a, b, **_: torch.div(_tensor(a, b), b, rounding_mode="trunc"))


def _division(node: Node) -> Callable | None:
    return _floor_divide(node) if "rounding_mode" in node.kwargs else None


def _of_number(node: Node) -> Callable | None:
    """17 % b: the number becomes a tensor."""
    if not _all_integers(node) or isinstance(node.args[0], Node):
        return None
    return lambda a, b: torch.remainder(_tensor(a, b), b)


def _power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """By the exponent's own bits: engines' powers are those of floating-point numbers."""
    found = None
    for k in range(_BITS_OF_SHIFTS[dtype]):
        odd = torch.remainder(torch.div(exponent, 1 << k, rounding_mode="trunc"), 2) == 1
        factor = torch.where(odd, 1 << (1 << k), 1).to(dtype)
        found = factor if found is None else found * factor
    return found


def _left_shift(node: Node) -> Callable | None:
    return _shift(node, lambda a, power: a * power)


def _right_shift(node: Node) -> Callable | None:
    return _shift(node, floor_divide)


def _shift(node: Node, combine: Callable) -> Callable | None:
    if not _all_integers(node) or not isinstance(node.args[0], Node):
        return None
    by = node.args[1]
    if not isinstance(by, Node):
        return (lambda a, b: combine(a, 1 << b)) if 0 <= by < (31 if node.meta["val"].dtype is torch.int32 else 63) \
            else None
    dtype = node.meta["val"].dtype
    return None if dtype not in _BITS_OF_SHIFTS else lambda a, b: combine(a.to(dtype), _power_of_two(b, dtype))


def _power(node: Node) -> Callable | None:
    """By squaring: engines' powers are those of floating-point numbers."""
    exponent = node.args[1]
    if not is_integer(node) or isinstance(exponent, Node) or not 0 <= exponent <= _LARGEST_POWER \
            or not isinstance(node.args[0], Node) or exponent != int(exponent):
        return None

    def power(x: Tensor, exponent: int) -> Tensor:
        found, square, left = None, x, int(exponent)
        while left:
            if left & 1:
                found = square if found is None else found * square
            left >>= 1
            square = square * square if left else square
        return torch.ones_like(x) if found is None else found.clone()

    return power


def _indices(node: Node) -> Callable | None:
    """ONNX looks up by indices of 64 bits alone, where there are several of them or they say where to write."""
    at = 2 if node.target.overloadpacket is _ATEN.index_add else 1
    indices = node.args[at] if isinstance(node.args[at], (list, tuple)) else [node.args[at]]
    if not any(i is not None and i.meta["val"].dtype is torch.int32 for i in indices):
        return None
    wide = lambda i: i.long() if i is not None and i.dtype is torch.int32 else i

    def looked_up(*args, **kwargs):
        given = args[at]
        given = [wide(i) for i in given] if isinstance(given, (list, tuple)) else wide(given)
        return node.target(*args[:at], given, *args[at + 1:], **kwargs)

    return looked_up


INTEGERS: dict[object, Callable[[Node], Callable | None]] = {
    _ATEN.floor_divide: _floor_divide,
    _ATEN.div: _division,
    _ATEN.remainder: _of_number,
    _ATEN.__lshift__: _left_shift,
    _ATEN.__rshift__: _right_shift,
    _ATEN.bitwise_left_shift: _left_shift,
    _ATEN.bitwise_right_shift: _right_shift,
    _ATEN.pow: _power,
    _ATEN.index: _indices,
    _ATEN.index_put: _indices,
    _ATEN.index_add: _indices,
}
