"""Entries of the op tables, and the exception for ops that are not supported.

An entry is a PyTorch function for one ONNX op. It receives tensors, and Python numbers where the ONNX op takes a shape,
an axis or a bound as a tensor: those must be known at compile time.
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

    known: positions passed as Python numbers or lists. maybe: the same if the operand is constant, else a tensor.
    weights: positions where a constant is a weight of the model. of_shape: computed from the shapes only. of_values:
    all operands must be constant, and are passed as tensors.
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
    """Attributes of one ONNX node. listed: number of its outputs. outputs: number up to the last one that is read.
    opset: of the model."""

    values: dict[str, Any]
    listed: int
    outputs: int
    opset: int

    def get(self, name: str, default=None):
        return self.values.get(name, default)

    def refuse(self, name: str, *accepted) -> None:
        """Raises NotCovered if the attribute has any other value."""
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
    """Axes as non-negative numbers."""
    return [a % max(1, x.dim()) for a in axes]


def choose(x: torch.Tensor, axis: int, indices: list[int]) -> torch.Tensor:
    """Select constant positions along an axis, with a slice if they are consecutive."""
    n = len(indices)
    if n and indices == list(range(indices[0], indices[0] + n)):
        return x if n == x.shape[axis] else x.narrow(axis, indices[0], n)
    if n == x.shape[axis] and indices == list(range(n - 1, -1, -1)):
        return x.flip(axis)
    return x.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=x.device))
