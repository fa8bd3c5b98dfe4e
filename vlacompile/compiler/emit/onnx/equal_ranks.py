"""Gives both operands of a product with a constant one rank, where ONNX Runtime (1.32) crashes at other ones."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.node_writer import NodeWriter

_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})


def equal_ranks(model: ir.Model) -> None:
    """In place, in graphs that cast numbers and move their first dimension: there ONNX Runtime moves casts before
    transposes to fuse these into products, forgets to look up the new nodes where the ranks differ, and reads them
    through a null pointer.

        %x = Transpose(%t [8,3,4] f16, perm=(1,0,2)); %y = MatMul(%x, %w [4,5] f16)
    ->  %x_2 = Reshape(%x, (24,4)); %y_2 = MatMul(%x_2, %w); %y = Reshape(%y_2, (3,8,5))"""
    if not (any(map(_moves_first, model.graph)) and any(map(_casts, model.graph))):
        return
    for node in [n for n in model.graph if n.op_type == "MatMul"]:
        left, right = (len(v.shape) for v in node.inputs)
        if left == right or min(left, right) < 2 or not any(map(_is_constant, node.inputs)):
            continue
        write, dtype, shape = NodeWriter(model, node), node.outputs[0].dtype, node.outputs[0].shape
        x, y = node.inputs
        if right == 2:
            x = _shaped(write, x, [math.prod(x.shape[:-1]), x.shape[-1]])
            made = write.op("MatMul", x, y, dtype=dtype, shape=[x.shape[0], y.shape[-1]])
        else:
            rank = max(left, right)
            x, y = (_shaped(write, v, [1] * (rank - len(v.shape)) + list(v.shape)) for v in (x, y))
            made = write.op("MatMul", x, y, dtype=dtype, shape=[1] * (rank - len(shape)) + list(shape))
        write.stands_for_node(_shaped(write, made, list(shape)))


def _shaped(write: NodeWriter, value: ir.Value, shape: list[int]) -> ir.Value:
    if list(value.shape) == shape:
        return value
    return write.op("Reshape", value, write.constant(np.array(shape, np.int64)), dtype=value.dtype, shape=shape)


def _moves_first(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.attributes.get_ints("perm", [1])[0] != 0


def _casts(node: ir.Node) -> bool:
    """Whether it casts numbers, or ONNX Runtime computes it in f32 and so casts its operands."""
    floats = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None and v.dtype in _FLOATS}
    return bool(floats - {ir.DataType.FLOAT})


def _is_constant(value: ir.Value) -> bool:
    """An initializer, or one that is cast from 16 bits."""
    node = value.producer()
    casts = node is not None and node.op_type == "Cast"
    return value.const_value is not None or (casts and _is_constant(node.inputs[0]))
