"""Evaluates values that the exporter left symbolic although they depend on no input.

A model may read a number from a tensor (`mask.sum().item()`) that depends on no input; the exporter then carries a
symbol through the graph. Such values are computed here from the constants that they depend on.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from vlacompile.compiler.graph.program import infer_val
from vlacompile.errors import CaptureError
from vlacompile.policy.source_lines import line_of

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def is_symbolic(val) -> bool:
    """Whether a node's value is a symbol, or its shape contains one."""
    if isinstance(val, torch.Tensor):
        return any(isinstance(d, torch.SymInt) for d in val.shape)
    if isinstance(val, (list, tuple)):
        return any(is_symbolic(v) for v in val)
    return isinstance(val, _SYMBOLS)


class Concretiser:
    """Evaluates nodes of an exported graph that depend on no input. known: {placeholder or get_attr: tensor}."""

    def __init__(self, known: Mapping[Node, torch.Tensor]):
        self.values: dict[Node, object] = dict(known)

    def is_known(self, node: Node) -> bool:
        """Whether the node depends on no input."""
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
        """The value of a node for which `is_known` holds."""
        if node not in self.values:
            for n in node.all_input_nodes:
                self.value(n)
            with torch.no_grad():
                self.values[node] = node.target(*map_arg(node.args, self.values.__getitem__),
                                                **map_arg(node.kwargs, self.values.__getitem__))
        return self.values[node]


def type_of(new: Node, old: Node, policy: str):
    """Shape and dtype of `new`, whose operands are concrete by now, where those of `old` were symbolic. Raises
    CaptureError if they depend on the values of an input."""
    try:
        return infer_val(new)
    except RuntimeError as error:
        raise CaptureError(
            "a shape or a number depends on the values of an input", where=f'Policy "{policy}", {line_of(old)}',
            why=f"the graph would differ from one input to the next: {old.name}",
            fix="use fixed shapes and masks there, instead of boolean indices and .item()") from error
