"""Values that the exporter left symbolic although they are known: computed now.

A model may read a number from a tensor (`mask.sum().item()`) that depends on no input; the exporter then carries a
symbol through the graph. Such values are evaluated from the constants they come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.errors import CaptureError

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def is_symbolic(val) -> bool:
    """Whether a node's value, or its shape, is not a number yet."""
    if isinstance(val, torch.Tensor):
        return any(isinstance(d, torch.SymInt) for d in val.shape)
    if isinstance(val, (list, tuple)):
        return any(is_symbolic(v) for v in val)
    return isinstance(val, _SYMBOLS)


class Concretiser:
    """Evaluates nodes of an exported graph that depend on no input. known: {placeholder or get_attr: tensor}."""

    def __init__(self, known: Mapping[Node, torch.Tensor], policy: str):
        self.values: dict[Node, object] = dict(known)
        self.policy = policy

    def is_known(self, node: Node) -> bool:
        """Whether it depends on no input."""
        stack, seen = [node], set()
        while stack:
            n = stack.pop()
            if n in self.values or n in seen:
                continue
            if n.op != "call_function":
                return False
            seen.add(n)
            stack.extend(n.all_input_nodes)
        return True

    def value(self, node: Node):
        """Raises CaptureError when it depends on an input."""
        if node not in self.values:
            if node.op != "call_function":
                raise CaptureError("a number is read from a tensor that an input decides", where=f'Policy "{self.policy}"',
                                   why=f"it depends on {node.name}: the graph would differ from one input to the next",
                                   fix="use fixed shapes and masks there instead of .item() and boolean indices")
            for n in node.all_input_nodes:  # depth first, without recursion into what is known
                self.value(n)
            with torch.no_grad():
                self.values[node] = node.target(*map_arg(node.args, self.values.__getitem__),
                                                **map_arg(node.kwargs, self.values.__getitem__))
        return self.values[node]
