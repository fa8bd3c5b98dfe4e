"""Operands of mixed types, converted by ops of their own as PyTorch converts them inside of an op: few ops of
ONNX take any.

Must not know stages.
"""

from __future__ import annotations

import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes
from torch.fx import Graph, Node
from torch.fx.node import map_arg

_ATEN = torch.ops.aten
NAME = "name"  # key in the metadata of a node: what it is called, if not by its op
# Not element by element, or not tagged so, and computed in the type of the result.
_OF_RESULT = frozenset({
    _ATEN.addr, _ATEN.cat, _ATEN.copy, _ATEN.cumprod, _ATEN.cumsum, _ATEN.dot, _ATEN.fill, _ATEN.floor_divide,
    _ATEN.huber_loss, _ATEN.index_put, _ATEN.l1_loss, _ATEN.logcumsumexp, _ATEN.logsumexp, _ATEN.mean, _ATEN.mse_loss,
    _ATEN.nansum, _ATEN.prelu, _ATEN.prod, _ATEN.smooth_l1_loss, _ATEN.stack, _ATEN.std, _ATEN.sum, _ATEN.var,
    _ATEN.vdot, _ATEN.where})
_OF_TRUTH = frozenset({_ATEN.all, _ATEN.any, _ATEN.logical_and, _ATEN.logical_or, _ATEN.logical_xor, _ATEN.logical_not})
# Their indices have 64 bits in ONNX.
_INDEXED = frozenset({_ATEN.index, _ATEN._unsafe_index, _ATEN.index_put, _ATEN._unsafe_index_put})
# Operands that say where, not what.
_PLACES = frozenset({"condition", "mask", "indices"})


def promoted(graph: Graph) -> bool:
    """Inserts conversions into a graph of single ops, in place. Whether there were any to insert."""
    found = False
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        dtype = _computed_in(node)
        if dtype is not None:
            found |= _convert(node, dtype)
        if getattr(node.target, "overloadpacket", None) in _INDEXED:
            found |= _widen_indices(node)
    return found


def _computed_in(node: Node) -> torch.dtype | None:
    """The type that PyTorch converts the operands of `node` to; None if it converts none."""
    target, val = node.target, node.meta.get("val")
    aten = isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"
    if not aten or not isinstance(val, torch.Tensor) or val.is_complex():
        return None
    packet = target.overloadpacket
    if packet in _OF_TRUTH:
        return torch.bool
    if packet in _OF_RESULT or (torch.Tag.pointwise in target.tags and val.dtype is not torch.bool):
        return None if packet in (_ATEN.abs, _ATEN.angle) else val.dtype  # of complex numbers
    if torch.Tag.pointwise not in target.tags:
        return None
    given = [_value(a) for name, a in _given(node) if name not in _PLACES and isinstance(a, (Node, bool, int, float))]
    _, common = elementwise_dtypes(*given, type_promotion_kind=ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT)
    return common


def _given(node: Node) -> list[tuple[str, object]]:
    names = [a.name for a in node.target._schema.arguments]
    return [*zip(names, node.args, strict=False), *node.kwargs.items()]


def _value(operand):
    """Shapes and types alone, as tensors of the meta device."""
    if not isinstance(operand, Node):
        return operand
    return torch.empty(tuple(operand.meta["val"].shape), dtype=operand.meta["val"].dtype, device="meta")


def _convert(node: Node, dtype: torch.dtype) -> bool:
    kinds = {a.name: str(a.type) for a in node.target._schema.arguments}
    found = False

    def tensor(x: Node) -> Node:
        nonlocal found
        if not isinstance(x.meta.get("val"), torch.Tensor) or x.meta["val"].dtype is dtype:
            return x
        found = True
        return _converted(node, x, dtype)

    def number(x):
        nonlocal found
        if type(x) in (bool, int, float) and type(x) is not _number_of(dtype):
            found = True
            return _number_of(dtype)(x)
        return x

    def one(name: str, value):
        if name in _PLACES:
            return value
        if "Tensor" not in kinds[name]:
            return number(value) if kinds[name] in ("number", "Optional[number]") else value
        if isinstance(value, (bool, int, float)):
            nonlocal found
            found = True
            return _before(node, _ATEN.scalar_tensor.default, (_number_of(dtype)(value),), {"dtype": dtype},
                           torch.empty((), dtype=dtype, device="meta"))
        return map_arg(value, tensor)

    names = [a.name for a in node.target._schema.arguments]
    node.args = tuple(one(n, a) for n, a in zip(names, node.args, strict=False))
    node.kwargs = {n: one(n, a) for n, a in node.kwargs.items()}
    return found


def _widen_indices(node: Node) -> bool:
    narrow = [i for i in node.args[1] if isinstance(i, Node) and i.meta["val"].dtype is torch.int32]
    wide = {i: _converted(node, i, torch.int64) for i in narrow}
    node.args = (node.args[0], [wide.get(i, i) for i in node.args[1]], *node.args[2:])
    return bool(narrow)


def _converted(node: Node, x: Node, dtype: torch.dtype) -> Node:
    return _before(node, torch.ops.prims.convert_element_type.default, (x, dtype), {},
                   torch.empty(tuple(x.meta["val"].shape), dtype=dtype, device="meta"))


def _number_of(dtype: torch.dtype) -> type:
    return float if dtype.is_floating_point else bool if dtype is torch.bool else int


def _before(node: Node, target, args: tuple, kwargs: dict, val: torch.Tensor) -> Node:
    with node.graph.inserting_before(node):
        made = node.graph.create_node("call_function", target, args, kwargs)
    made.meta = {"val": val, NAME: f"{target._opname}_default"}
    return made
