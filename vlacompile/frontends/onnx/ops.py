"""What an entry of the op tables is, and how an op says that it is not covered.

An entry is a PyTorch function of one ONNX op. It sees tensors, and Python numbers where the ONNX op takes a shape, an
axis or a bound as a tensor: those have to be known when compiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

TABLE: dict[str, Op] = {}


@dataclass(frozen=True)
class Op:
    """function: (Attributes, *operands) -> a tensor, or a tuple of them; an absent operand is None.

    known: positions handed over as Python numbers or lists. maybe: the same where the operand is known, else a tensor.
    weights: positions where a constant is a weight of the model. of_shape: computed from the shapes alone. of_values:
    all operands have to be known, and are handed over as tensors.
    """

    function: Callable
    known: frozenset[int]
    maybe: frozenset[int]
    weights: frozenset[int]
    of_shape: bool
    of_values: bool


class NotCovered(Exception):
    """Why an op cannot be translated as it is used."""


@dataclass(frozen=True)
class Attributes:
    """Of one ONNX node. listed: how many outputs it has. outputs: how many up to the last that is read. opset: of the
    model."""

    values: dict[str, Any]
    listed: int
    outputs: int
    opset: int

    def get(self, name: str, default=None):
        return self.values.get(name, default)

    def refuse(self, name: str, *accepted) -> None:
        """Raises NotCovered when the attribute has another value."""
        if name in self.values and self.values[name] not in accepted:
            raise NotCovered(f"{name}={self.values[name]!r} is not covered")


def op(*names: str, known: tuple[int, ...] = (), maybe: tuple[int, ...] = (), weights: tuple[int, ...] = (),
       of_shape: bool = False, of_values: bool = False):
    def add(function: Callable) -> Callable:
        for name in names:
            assert name not in TABLE, name
            TABLE[name] = Op(function, frozenset(known), frozenset(maybe), frozenset(weights), of_shape, of_values)
        return function

    return add


def axes_of(x: torch.Tensor, axes) -> list[int]:
    """As numbers from 0."""
    return [a % max(1, x.dim()) for a in axes]


def choose(x: torch.Tensor, axis: int, indices: list[int]) -> torch.Tensor:
    """Known positions along an axis, as a slice where they are in a row."""
    n = len(indices)
    if n and indices == list(range(indices[0], indices[0] + n)):
        return x if n == x.shape[axis] else x.narrow(axis, indices[0], n)
    if n == x.shape[axis] and indices == list(range(n - 1, -1, -1)):
        return x.flip(axis)
    return x.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=x.device))
