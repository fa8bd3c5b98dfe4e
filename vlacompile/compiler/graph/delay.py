"""The op that reads a value of one observation ago, and chains of it: how a graph says "history"."""

from __future__ import annotations

import torch
from torch.fx import Node

HISTORY = "(history)"  # in a dependency set: changes whenever the histories advance


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
