"""Which attentions of an ONNX graph TensorRT fuses into one kernel: a softmax between two products, in various forms.

Found by trial with TensorRT-RTX 1.7.1 for SM86 (tests/check/test_tensorrt.py tests the limits). Must not know its log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

NARROWEST, WIDEST = 9, 256  # sizes of a head; with 8 or 512 it stays two products and a softmax
_HALF = ir.DataType.FLOAT16
BETWEEN = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Cast"})  # scaling, masks, and casts for a softmax in f32


@dataclass(frozen=True)
class Attention:
    """first: the product of queries and keys. second: the product of the softmax and the values."""

    first: ir.Node
    second: ir.Node


def attentions(model: ir.Model) -> tuple[Attention, ...]:
    """All attentions, in graph order."""
    found = []
    for softmax in [n for n in model.graph if n.op_type == "Softmax"]:
        first, second = _before(softmax.inputs[0]), _behind(softmax.outputs[0])
        if first is not None and second is not None:
            found.append(Attention(first, second))
    return tuple(found)


def fused_attentions(model: ir.Model) -> tuple[ir.Node, ...]:
    """The second product of each attention that is fused: both products in fp16, several heads (or batches), several
    keys, and keys that are not shared if the queries are constant."""
    return tuple(a.second for a in attentions(model) if is_fused(a))


def is_fused(found: Attention) -> bool:
    return not obstacles(found)


def obstacles(found: Attention) -> frozenset[str]:
    """Why TensorRT-RTX 1.7.1 does not fuse it; empty: it does."""
    first, second = found.first, found.second
    shared = first.inputs[0].const_value is not None and sum(
        n.op_type == "MatMul" and i == 1 and n.inputs[0].const_value is not None
        for n, i in first.inputs[1].uses()) > 1  # the products are merged into one
    values = (*first.inputs, *second.inputs, *first.outputs, *second.outputs)
    *batch, keys, width = second.inputs[1].shape
    found_why = obstacles_of_shape(math.prod(batch), keys, (width, first.inputs[0].shape[-1]),
                                   half=all(v.dtype == _HALF for v in values))
    return found_why | ({"constant queries of several attentions"} if shared else frozenset())


def obstacles_of_shape(heads: int, keys: int, widths: tuple[int, int], half: bool) -> frozenset[str]:
    """Those that follow from sizes and types. widths: of a head's values and queries. half: all of it is in fp16."""
    found_why = {"not in fp16": not half, "one head": heads <= 1, "one key": keys <= 1,
                 "head too narrow": min(widths) < NARROWEST, "head too wide": max(widths) > WIDEST}
    return frozenset(why for why, is_so in found_why.items() if is_so)


def _before(value: ir.Value) -> ir.Node | None:
    """The product that computes these logits, before masks and scaling."""
    node = value.producer()
    while node is not None and node.op_type in BETWEEN:
        shape = node.outputs[0].shape
        whole = [v for v in node.inputs if v is not None and v.producer() is not None and v.shape == shape]
        node = whole[0].producer() if whole else None
    return node if node is not None and node.op_type == "MatMul" else None


def _behind(value: ir.Value) -> ir.Node | None:
    """The product that reads the softmax as its left operand, after fully masked rows are set to zero."""
    while True:
        users = [(n, i) for n, i in value.uses() if n.op_type != "IsNaN"]
        if len(users) != 1:
            return None
        node, position = users[0]
        if node.op_type == "MatMul":
            return node if position == 0 else None
        if node.op_type not in BETWEEN:
            return None
        value = node.outputs[0]
