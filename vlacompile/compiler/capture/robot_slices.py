"""Slices that begin where the robot alone knows, and whose length is known: `x[b:b + 2]`, `x.narrow(dim, b, 2)`, which
PyTorch asks Python's numbers for. They are read and written row by row, at places that are tensors.

Where PyTorch gives fewer rows, as at a place that is none, numbers are NaN, so that no action is handed out; whole
numbers are read at a place that no tensor has, which the engine refuses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

_ATEN = torch.ops.aten
_WHOLE = (torch.int32, torch.int64)
_SAME = frozenset({_ATEN._to_copy.default, _ATEN.clone.default, _ATEN.detach.default, _ATEN.reshape.default,
                   _ATEN.view.default, _ATEN.alias.default, _ATEN.lift_fresh_copy.default})


def is_place(part) -> bool:
    """Whether it is a whole number that is known on the robot alone."""
    return (isinstance(part, FakeTensor) and part.dim() == 0 and part.dtype in _WHOLE
            and isinstance(torch.Tensor.item(part), torch.SymInt))


def has_slices(index) -> bool:
    return any(_is_slice(p) for p in (index if isinstance(index, tuple) else (index,)))


def has_places(index) -> bool:
    return any(is_place(p) or _is_slice(p) for p in (index if isinstance(index, tuple) else (index,)))


def dims_of(tensor: torch.Tensor, parts: list) -> list[int]:
    """Of each part of an index, how many dimensions of the tensor it takes."""
    taken = [0 if p is None else p.dim() if isinstance(p, torch.Tensor) and p.dtype == torch.bool else 1 for p in parts]
    hidden = tensor.dim() - sum(n for p, n in zip(parts, taken, strict=True) if p is not ...)
    return [hidden if p is ... else n for p, n in zip(parts, taken, strict=True)]


def read(tensor: torch.Tensor, index) -> tuple:
    """(tensor, index) with the same items, without such slices."""
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = dims_of(tensor, parts)
    for i, part in enumerate(parts):
        length = _length(part) if _is_slice(part) else None
        if length is not None:
            tensor, parts[i] = _rows(tensor, sum(taken[:i]), part.start, length, wraps=False), slice(None)
    return tensor, tuple(parts)


def write(tensor: torch.Tensor, index, value) -> bool:
    """As `tensor[index] = value`; False: neither of one slice whose length is known, beside numbers and plain slices,
    nor of places beside lists of rows."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if all(type(p) in (int, list) or is_place(p) or _is_rows(p) for p in parts):
        tensor.index_put_([torch.as_tensor(p) for p in parts], torch.as_tensor(value, dtype=tensor.dtype))
        return True
    taken, which = dims_of(tensor, parts), [i for i, p in enumerate(parts) if _is_slice(p)]
    if len(which) != 1 or not all(p is None or p is ... or isinstance(p, (int, slice)) for p in parts):
        return False
    at = which[0]
    length = _length(parts[at])
    if length is None:
        return False
    view = tensor[tuple(slice(None) if i == at else p for i, p in enumerate(parts))]
    dim = sum(1 if p is None else n for p, n in zip(parts[:at], taken, strict=False) if not isinstance(p, int))
    places, right = _places(parts[at].start, length, view.shape[dim], view.dtype, wraps=False)
    value = torch.as_tensor(value, dtype=view.dtype)
    while value.dim() > view.dim() and value.shape[0] == 1:
        value = value[0]
    value = value.expand([*view.shape[:dim], length, *view.shape[dim + 1:]])
    view.index_copy_(dim, places, _or_nan(value, right))
    return True


def narrow(tensor: torch.Tensor, dim: int, start: torch.Tensor, length: int) -> torch.Tensor:
    return _rows(tensor, dim, start, length, wraps=True)


def _is_rows(part) -> bool:
    return isinstance(part, torch.Tensor) and part.dim() > 0 and part.dtype in _WHOLE


def _is_slice(part) -> bool:
    return isinstance(part, slice) and (is_place(part.start) or is_place(part.stop))


def _length(part: slice) -> int | None:
    """None: not known."""
    if part.step not in (None, 1) or not (is_place(part.start) and is_place(part.stop)):
        return None
    (begin, first), (end, last) = map(_sum, map(_node, (part.start, part.stop)))
    return last - first if begin == end and last >= first else None


def _rows(tensor: torch.Tensor, dim: int, start: torch.Tensor, length: int, wraps: bool) -> torch.Tensor:
    places, right = _places(start, length, tensor.shape[dim], tensor.dtype, wraps)
    return _or_nan(tensor.index_select(dim, places), right)


def _places(start: torch.Tensor, length: int, size: int, dtype: torch.dtype,
            wraps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(i64[length], whether there are as many rows from `start` on). wraps: from the end through to the beginning, as
    narrow may read; a slice of -1 to 0 has no rows."""
    first = torch.where(start < 0, start + size, start).long()
    right = (first >= 0) & (first + length <= size)
    if not wraps:
        right = right & ((start >= 0) | (start + length < 0))
    elsewhere = 0 if dtype.is_floating_point else size
    return torch.where(right, first, elsewhere) + torch.arange(length), right


def _or_nan(value: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.where(right, value, torch.nan) if value.is_floating_point() else value


def _node(place: torch.Tensor) -> Node:
    tracer = get_proxy_mode().tracer
    return get_proxy_slot(place, tracer).proxy.node


def _sum(node: object) -> tuple[object, int]:
    """(what it is without the whole numbers that are added to it, their sum)"""
    if isinstance(node, Node) and node.target in _SAME and node.args[0].meta["val"].dtype in _WHOLE:
        return _sum(node.args[0])
    signs: dict[object, Callable[[int], int]] = {_ATEN.add.Tensor: int, _ATEN.sub.Tensor: lambda n: -n}
    if isinstance(node, Node) and node.target in signs and type(node.args[1]) is int and not node.kwargs:
        key, offset = _sum(node.args[0])
        return key, offset + signs[node.target](node.args[1])
    return _key(node), 0


def _key(arg: object) -> object:
    """Equal for nodes that compute the same."""
    if isinstance(arg, Node) and arg.op == "call_function":
        return (arg.target, *map(_key, arg.args), *((n, _key(a)) for n, a in sorted(arg.kwargs.items())))
    return tuple(map(_key, arg)) if isinstance(arg, (list, tuple)) else arg
