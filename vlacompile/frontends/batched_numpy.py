"""NumPy's functions of small arrays, over a batch of them in PyTorch: a value has the array's shape behind a dimension
for the batch, and broadcasts as the array would. What a language model writes for one pose holds for many at once.

Numbers are floats of one dtype; comparisons give bools, which arithmetic takes as 0 and 1. Must not know whose text or
policy asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Value = Any  # a tensor [batch, *shape], a Python number, or a list or tuple of values
LARGEST = 65_536  # elements of an array, per member of the batch
POWERS = 64.0  # the largest exponent
RANK = 32  # dimensions of an array, as in NumPy 1


class NotSupportedError(Exception):
    """what, why, fix: as in VlaError; who evaluates a text knows where."""

    def __init__(self, what: str, why: str, fix: str):
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix


def rank(value: Value) -> int:
    return value.dim() - 1 if isinstance(value, torch.Tensor) else 0


def is_number(value: Value) -> bool:
    return isinstance(value, (bool, int, float))


def shape_text(value: Value) -> str:
    return str(list(value.shape[1:])) if isinstance(value, torch.Tensor) else type(value).__name__


def shown(value: Value) -> str:
    return f"an array of shape {shape_text(value)}" if isinstance(value, torch.Tensor) else \
        f"{value:g}" if isinstance(value, float) else str(value) if is_number(value) or value is None else \
        f"a {type(value).__name__}"


class BatchedNumpy:
    """dtype: of the numbers. The methods are NumPy's functions of the same names."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.functions: dict[str, Callable[..., Value]] = {
            "abs": self.absolute, "max": self.amax, "min": self.amin, "linalg.norm": self.norm, "array": self.array} | {
            name: getattr(self, name) for name in
            ("absolute", "amax", "amin", "arctan2", "clip", "cross", "dot", "maximum", "mean", "minimum", "sum",
             "where")} | {
            name: self._unary(function) for name, function in (
                ("arccos", torch.acos), ("arcsin", torch.asin), ("arctan", torch.atan), ("cos", torch.cos),
                ("exp", torch.exp), ("sin", torch.sin), ("sqrt", torch.sqrt), ("square", torch.square),
                ("tan", torch.tan))}

    # arrays

    def array(self, object: Value) -> torch.Tensor:
        """Any value as a tensor; lists become the leading dimension."""
        if isinstance(object, torch.Tensor):
            return object
        if is_number(object):
            return torch.tensor([object], dtype=torch.bool if isinstance(object, bool) else self.dtype)
        if not isinstance(object, (list, tuple)) or not object:
            raise NotSupportedError(f"an array of {type(object).__name__}", "arrays are of numbers, at least one",
                                    "give numbers, or lists of them")
        parts = [self.array(part) for part in object]
        if len({p.shape[1:] for p in parts}) > 1:
            raise NotSupportedError("an array of parts of different shapes", ", ".join(map(shape_text, parts)),
                                    "give parts of one shape")
        if not all(p.dtype == torch.bool for p in parts):
            parts = [p.to(self.dtype) for p in parts]
        batch = max(p.shape[0] for p in parts)
        return _small(torch.stack([p.expand(batch, *p.shape[1:]) for p in parts], 1))

    def numbers(self, value: Value) -> torch.Tensor:
        """A value as floats."""
        return self.array(value).to(self.dtype)

    def together(self, *values: Value) -> list[torch.Tensor]:
        """Values as tensors of one rank, so that they broadcast as the arrays do."""
        tensors = [self.array(v) for v in values]
        most = max(t.dim() for t in tensors)
        lined = [t.reshape(t.shape[0], *[1] * (most - t.dim()), *t.shape[1:]) for t in tensors]
        try:
            shape = torch.broadcast_shapes(*(t.shape for t in lined))
        except RuntimeError as error:
            raise NotSupportedError("arrays whose shapes do not go together", " and ".join(map(shape_text, tensors)),
                                    "give arrays of one shape, or numbers") from error
        _check_size(shape)
        return lined

    # element by element

    def arithmetic(self, function: Callable[..., torch.Tensor], left: Value, right: Value) -> torch.Tensor:
        a, b = self.together(left, right)
        if a.dtype == b.dtype == torch.bool:
            raise NotSupportedError("arithmetic on two conditions", "NumPy has rules of its own for bools",
                                    "make numbers of them first: np.where(condition, 1.0, 0.0)")
        return function(a.to(self.dtype), b.to(self.dtype))

    def power(self, base: Value, exponent: Value) -> torch.Tensor:
        if not is_number(exponent) or not abs(exponent) <= POWERS:
            raise NotSupportedError("a power whose exponent is not a small constant",
                                    f"exponents are numbers from {-POWERS:g} to {POWERS:g}",
                                    "write a constant exponent, or np.exp(...)")
        return torch.pow(self.numbers(base), float(exponent))

    def negative(self, value: Value) -> torch.Tensor:
        if self.array(value).dtype == torch.bool:
            raise NotSupportedError("minus a condition", "NumPy refuses it as well",
                                    "make a number of it first: np.where(condition, 1.0, 0.0)")
        return -self.array(value)

    def compare(self, function: Callable[..., torch.Tensor], left: Value, right: Value) -> torch.Tensor:
        a, b = self.together(left, right)
        return function(a.to(self.dtype), b.to(self.dtype))

    def logical(self, function: Callable[..., torch.Tensor], *values: Value) -> torch.Tensor:
        tensors = self.together(*values)
        if any(t.dtype != torch.bool for t in tensors):
            raise NotSupportedError("logic of numbers", "only conditions are joined by and, or, not, &, |, ~",
                                    "compare first, as in x > 0")
        return function(*tensors)

    def _unary(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Value], torch.Tensor]:
        def computed(x: Value) -> torch.Tensor:
            return function(self.numbers(x))

        return computed

    def absolute(self, x: Value) -> torch.Tensor:
        return self.numbers(x).abs()

    def minimum(self, x1: Value, x2: Value) -> torch.Tensor:
        return torch.minimum(*(t.to(self.dtype) for t in self.together(x1, x2)))

    def maximum(self, x1: Value, x2: Value) -> torch.Tensor:
        return torch.maximum(*(t.to(self.dtype) for t in self.together(x1, x2)))

    def clip(self, a: Value, a_min: Value = None, a_max: Value = None) -> torch.Tensor:
        if a_min is not None:
            a = self.maximum(a, a_min)
        return self.numbers(a) if a_max is None else self.minimum(a, a_max)

    def arctan2(self, x1: Value, x2: Value) -> torch.Tensor:
        return self.arithmetic(torch.atan2, x1, x2)

    def where(self, condition: Value, x: Value, y: Value) -> torch.Tensor:
        chosen, a, b = self.together(condition, x, y)
        if chosen.dtype != torch.bool:
            raise NotSupportedError("a choice by a number", "np.where chooses by a condition",
                                    "compare first, as in np.where(x > 0, a, b)")
        return torch.where(chosen, a.to(self.dtype), b.to(self.dtype))

    # over axes

    def _dims(self, x: torch.Tensor, axis: Value) -> tuple[int, ...]:
        """Dimensions of the batched tensor."""
        if axis is None:
            return tuple(range(1, x.dim()))
        if not isinstance(axis, int) or isinstance(axis, bool) or not -rank(x) <= axis < rank(x):
            raise NotSupportedError(f"axis {shown(axis)} of an array of shape {shape_text(x)}", "there is none",
                                    "give an axis of the array as a constant, or leave it out")
        return (axis % rank(x) + 1,)

    def _reduced(self, function: Callable[..., torch.Tensor], a: Value, axis: Value) -> torch.Tensor:
        x = self.numbers(a)
        dims = self._dims(x, axis)
        return function(x, dim=dims) if dims else x

    def sum(self, a: Value, axis: Value = None) -> torch.Tensor:
        return self._reduced(torch.sum, a, axis)

    def mean(self, a: Value, axis: Value = None) -> torch.Tensor:
        return self._reduced(torch.mean, a, axis)

    def amax(self, a: Value, axis: Value = None) -> torch.Tensor:
        return self._reduced(torch.amax, a, axis)

    def amin(self, a: Value, axis: Value = None) -> torch.Tensor:
        return self._reduced(torch.amin, a, axis)

    def norm(self, x: Value, ord: Value = None, axis: Value = None) -> torch.Tensor:
        array = self.numbers(x)
        if not (ord is None or is_number(ord)) or ord not in (None, 1, 2) or isinstance(ord, bool) or (
                ord is not None and axis is None and rank(array) != 1):
            raise NotSupportedError(f"a norm with ord={shown(ord)} of an array of shape {shape_text(array)}",
                                    "there are the Euclidean norm, and the sum of absolute values of a vector",
                                    "leave ord out")
        return self._reduced(lambda a, dim: torch.linalg.vector_norm(a, ord or 2, dim), array.abs()
                             if rank(array) == 0 else array, axis)

    # vectors

    def dot(self, a: Value, b: Value) -> torch.Tensor:
        left, right = self.numbers(a), self.numbers(b)
        if min(rank(left), rank(right)) == 0:
            return self.arithmetic(torch.mul, left, right)
        inner = left.shape[-1], right.shape[1]
        if max(rank(left), rank(right)) > 2 or inner[0] != inner[1]:
            raise NotSupportedError("a product of arrays that do not go together",
                                    f"{shape_text(left)} and {shape_text(right)}",
                                    "give vectors or matrices whose inner sizes agree")
        rows = left if rank(left) == 2 else left[:, None]
        columns = right if rank(right) == 2 else right[:, :, None]
        _check_size(torch.Size([1, *rows.shape[1:], columns.shape[-1]]))
        product = (rows[..., None] * columns[:, None]).sum(2)
        product = product if rank(right) == 2 else product[..., 0]
        return product if rank(left) == 2 else product[:, 0]

    def cross(self, a: Value, b: Value) -> torch.Tensor:
        left, right = (t.to(self.dtype) for t in self.together(a, b))
        if left.shape[-1] != 3 or right.shape[-1] != 3 or rank(left) == 0:
            raise NotSupportedError("a cross product of other than three numbers",
                                    f"{shape_text(left)} and {shape_text(right)}", "give vectors in space")
        (a0, a1, a2), (b0, b1, b2) = left.unbind(-1), right.unbind(-1)
        return torch.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], -1)

    # parts

    def taken(self, x: torch.Tensor, index: Sequence[int | slice | list[int] | None]) -> torch.Tensor:
        """x[index] with constants: numbers, slices, None, and at most one list of numbers."""
        lists = [i for i in index if isinstance(i, list)]
        if len(lists) > 1 or (lists and any(isinstance(i, int) for i in index)):
            raise NotSupportedError("an index of a list and other numbers", "one list picks rows, slices the rest",
                                    "index twice, as in x[[0, 2]][:, 1]")
        dim, found = 1, x
        for part in index:
            if part is None:
                _check_size([*found.shape, 1])
                found, dim = found.unsqueeze(dim), dim + 1
                continue
            if dim >= found.dim():
                raise NotSupportedError(f"more indices than an array of shape {shape_text(x)} has dimensions",
                                        "each picks along one of them", "leave the last ones out")
            size = found.shape[dim]
            if isinstance(part, slice):
                wanted = range(*part.indices(size))
            else:
                wanted = part if isinstance(part, list) else [part]
                if not all(-size <= i < size for i in wanted):
                    raise NotSupportedError(f"index {part} of an array of shape {shape_text(x)}", "there is none",
                                            f"give numbers from 0 to {size - 1}")
            if not wanted:
                raise NotSupportedError("an index that picks nothing", f"the array has shape {shape_text(x)}",
                                        "pick at least one element")
            if isinstance(part, int):
                found = found.select(dim, part % size)
            elif wanted != range(size):
                found = torch.cat([found.narrow(dim, i % size, 1) for i in wanted], dim)
            dim += not isinstance(part, int)
        return found


def _small(x: torch.Tensor) -> torch.Tensor:
    _check_size(x.shape)
    return x


def _check_size(shape: Sequence[int]) -> None:
    if len(shape) - 1 > RANK:
        raise NotSupportedError(f"an array of {len(shape) - 1} dimensions", f"at most {RANK} are allowed",
                                "compute with arrays of fewer")
    if math.prod(shape[1:]) > LARGEST:
        raise NotSupportedError(f"an array of {math.prod(shape[1:])} elements", f"at most {LARGEST} are allowed",
                                "compute with fewer numbers")
