"""The op that reads a value of one observation ago, and chains of it: how a graph says "history"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from vlacompile.policy.policy import Source

HISTORY = "(history)"  # in a dependency set: changes whenever the histories advance


@dataclass(frozen=True)
class EarlierFrame(Source):
    """What the source `of` held `age` observations ago: a source of a captured program only; none is left once
    earlier frames are delays."""

    of: str = ""
    age: int = 0


def delay(value: torch.Tensor) -> torch.Tensor:
    """The op that stands for `value` of one observation ago; of the first observation itself, which fills a history."""
    return value


def is_delay(node: Node) -> bool:
    return node.target is delay


def root_of(node: Node) -> Node:
    """The value at the beginning of a chain of delays."""
    while is_delay(node):
        node = node.args[0]
    return node


def frame_name(source: str, age: int) -> str:
    return f"{source}@{age}" if age else source
