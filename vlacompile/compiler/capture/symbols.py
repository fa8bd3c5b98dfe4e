"""Shapes and numbers that the exporter left symbolic: they depend on the values of inputs."""

from __future__ import annotations

import torch
from torch.fx import Node

from vlacompile.compiler.graph.program import infer_val
from vlacompile.policy.source_lines import line_of
from vlart.errors import CaptureError

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def is_symbolic(val) -> bool:
    """Whether a node's value is a symbol, or its shape contains one."""
    if isinstance(val, torch.Tensor):
        return any(isinstance(d, torch.SymInt) for d in val.shape)
    if isinstance(val, (list, tuple)):
        return any(is_symbolic(v) for v in val)
    return isinstance(val, _SYMBOLS)


def type_of(new: Node, old: Node, policy: str):
    """Shape and dtype of `new`, whose operands are concrete by now, where those of `old` were symbolic. Raises
    CaptureError if they depend on the values of an input."""
    try:
        return infer_val(new)
    except RuntimeError as error:
        raise decided_by_data(old, policy) from error


def decided_by_data(node: Node, policy: str) -> CaptureError:
    return CaptureError(
        "a shape or a number depends on the values of an input", where=f'Policy "{policy}", {line_of(node)}',
        why=f"the graph would differ from one input to the next: {node.name}",
        fix="use fixed shapes and masks there, instead of boolean indices and .item()")
