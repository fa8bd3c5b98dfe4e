"""No value inside a stage is of bytes: TensorRT (10.3, RTX 1.7.1) has u8 for network inputs and outputs only, rejects a
Transpose of it ("has type UInt8 but must have type ..."), and converts it to and from f32 and f16 alone.

Arithmetic of bytes is in i32 before anything is emitted (`LegaliseIntegers`): what is left moves them, and both types
of floating-point numbers hold 0..255 exactly.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# Ops that only move elements.
MOVES = frozenset({"Transpose", "Reshape", "Slice", "Concat", "Gather", "Squeeze", "Unsqueeze", "Expand", "Split",
                   "Identity", "Flatten", "Tile", "DepthToSpace", "SpaceToDepth", "GatherElements", "GatherND"})
_BYTES, _HALF = ir.DataType.UINT8, ir.DataType.FLOAT16
_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)
_NUMBERS = {ir.DataType.FLOAT: np.float32, _HALF: np.float16}
_BY_SCALE = ("QuantizeLinear", "DequantizeLinear")  # whose bytes stand for other numbers


def bytes_for_tensorrt(model: ir.Model) -> None:
    """Casts u8 inputs before any op moves them, and u8 outputs behind the last. Values that ops join are in one type:
    the one that all their readers cast to, or else f16."""
    for joined in _joined(model):
        if not any(node.op_type in _BY_SCALE for value in joined for node, _ in value.uses()):
            _in_numbers(model, joined)


def _joined(model: ir.Model) -> list[list[ir.Value]]:
    """The u8 values, grouped: an op other than a Cast has one type for those that it reads and makes."""
    groups: dict[ir.Value, list[ir.Value]] = {}
    for value in model.graph.inputs:
        _join(groups, [value])
    for node in model.graph:
        if node.op_type == "Cast":
            for value in (*node.inputs, *node.outputs):
                _join(groups, [value])
        else:
            _join(groups, [*node.inputs, *node.outputs])
    return list({id(group): group for group in groups.values()}.values())


def _join(groups: dict[ir.Value, list[ir.Value]], values: list[ir.Value | None]) -> None:
    found = [groups.setdefault(v, [v]) for v in values if v is not None and v.dtype == _BYTES]
    for group in found[1:]:
        if group is not found[0]:
            found[0].extend(v for v in group if groups[v] is group)
            for v in group:
                groups[v] = found[0]


def _in_numbers(model: ir.Model, joined: list[ir.Value]) -> None:
    _read_past_integers(model, joined)
    casts = [n for v in joined for n, _ in v.uses() if n.op_type == "Cast"]
    kinds = {ir.DataType(n.attributes.get_int("to")) for n in casts}
    kind = kinds.pop() if len(kinds) == 1 and kinds <= set(_NUMBERS) else _HALF
    for value in joined:
        if value.is_graph_input():
            _take_in(model, value, kind)
        elif value.is_initializer():
            _retype_constant(model, value, kind)
        else:
            _retype(model, value, kind)
    for n in casts:
        if n.attributes.get_int("to") == kind and not n.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(n.outputs[0], n.inputs[0])
            model.graph.remove(n, safe=True)


def _read_past_integers(model: ir.Model, joined: list[ir.Value]) -> None:
    """A Cast of bytes to integers that is only cast again, which changes no byte."""
    for value in joined:
        for node in [n for n, _ in value.uses() if n.op_type == "Cast" and n.attributes.get_int("to") in _INTEGERS]:
            for user in [u for u, _ in node.outputs[0].uses() if u.op_type == "Cast"]:
                user.replace_input_with(0, value)
            if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                model.graph.remove(node, safe=True)


def _take_in(model: ir.Model, value: ir.Value, kind: ir.DataType) -> None:
    uses = list(value.uses())
    if not uses:  # a port that nothing in the stage reads
        return
    first = next(n for n in model.graph if any(n is u for u, _ in uses))
    cast = _cast(value, kind, f"{value.name}_numbers", first.doc_string)
    for node, i in uses:
        node.replace_input_with(i, cast.outputs[0])
    model.graph.insert_before(first, cast)


def _retype_constant(model: ir.Model, value: ir.Value, kind: ir.DataType) -> None:
    tensor = ir.tensor(value.const_value.numpy().astype(_NUMBERS[kind]), name=value.name)
    value.const_value, value.type = tensor, ir.TensorType(kind)


def _retype(model: ir.Model, value: ir.Value, kind: ir.DataType) -> None:
    """The result of a Cast to bytes, of an op that makes constants, or of a move."""
    node = value.producer()
    if value.is_graph_output():
        if node.op_type == "Cast" and node.inputs[0].dtype in _NUMBERS and not value.uses():
            return
        _hand_out(model, node, value)
    value.type = ir.TensorType(kind)
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", kind)
    elif node.op_type in ("Constant", "ConstantOfShape"):
        made = node.attributes["value"].value.numpy().astype(_NUMBERS[kind])
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(made))


def _hand_out(model: ir.Model, node: ir.Node, value: ir.Value) -> None:
    """The port is a Cast of the value, and keeps its name."""
    port = _cast(value, _BYTES, f"{value.name}__bytes", node.doc_string)
    model.graph.insert_after(node, port)
    for i, v in enumerate(model.graph.outputs):
        if v is value:
            model.graph.outputs[i] = port.outputs[0]
    value.name, port.outputs[0].name = f"{value.name}__numbers", value.name


def _cast(value: ir.Value, kind: ir.DataType, name: str, line: str | None) -> ir.Node:
    node = ir.node("Cast", [value], {"to": kind}, name=name)
    node.doc_string = line
    out = node.outputs[0]
    out.name, out.shape, out.type = name, value.shape, ir.TensorType(kind)
    return node
