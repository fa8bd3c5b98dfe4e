"""Ops of integers and booleans that TensorRT has not, written with ops that it has, to the bit.

TensorRT 10.3 documents arithmetic, comparisons, moves and reductions of i32 and i64, but no bitwise ops, no running
sums of integers, and comparisons of numbers only.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.node_writer import NodeWriter

_BOOL = ir.DataType.BOOL
_INTEGERS = {ir.DataType.INT32: (np.int32, 31), ir.DataType.INT64: (np.int64, 63)}
_LARGEST_PRODUCT = 1 << 22  # elements of a product before its sum
_LOGIC = {"BitwiseAnd": "And", "BitwiseOr": "Or", "BitwiseXor": "Xor"}


def integers_for_tensorrt(model: ir.Model) -> None:
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is not None:
            value = rewrite(NodeWriter(model, node), node)
            if value is not None:
                NodeWriter(model, node).stands_for_node(value)


def _equal(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    """Of booleans."""
    if node.inputs[0].dtype != _BOOL:
        return None
    shape = node.outputs[0].shape
    return write.op("Not", write.op("Xor", *node.inputs, dtype=_BOOL, shape=shape), dtype=_BOOL, shape=shape)


def _bitwise_not(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    return _complement(write, x) if x.dtype in _INTEGERS else None


def _complement(write: NodeWriter, x: ir.Value) -> ir.Value:
    """-1 - x"""
    return write.op("Sub", write.constant(np.array(-1, _INTEGERS[x.dtype][0])), x, dtype=x.dtype, shape=x.shape)


def _bitwise(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    """On the bits of both, of negative numbers on those of their complement, which is not negative."""
    dtype, out = node.inputs[0].dtype, node.outputs[0].shape
    if dtype not in _INTEGERS:
        return None
    number, bits = _INTEGERS[dtype]
    powers = write.constant(np.array([1 << k for k in range(bits)], number))
    signs, planes = zip(*(_bits(write, x, powers, bits) for x in node.inputs), strict=True)
    logic = _LOGIC[node.op_type]
    sign = write.op(logic, *signs, dtype=_BOOL, shape=(*out, 1))
    plane = write.op(logic, *planes, dtype=_BOOL, shape=(*out, bits))
    plane = write.op("Xor", plane, sign, dtype=_BOOL, shape=(*out, bits))
    zero = write.constant(np.array(0, number))
    terms = write.op("Where", plane, powers, zero, dtype=dtype, shape=(*out, bits))
    last = write.constant(np.array([-1], np.int64))
    total = write.op("ReduceSum", terms, last, dtype=dtype, shape=out, keepdims=0)
    negative = write.op("Squeeze", sign, last, dtype=_BOOL, shape=out)
    return write.op("Where", negative, _complement(write, total), total, dtype=dtype, shape=out)


def _bits(write: NodeWriter, x: ir.Value, powers: ir.Value, bits: int) -> tuple[ir.Value, ir.Value]:
    """(whether it is negative [...,1], its bits below the sign [...,bits])"""
    number, one = _INTEGERS[x.dtype][0], tuple(x.shape)
    column = write.op("Unsqueeze", x, write.constant(np.array([-1], np.int64)), dtype=x.dtype, shape=(*one, 1))
    negative = write.op("Less", column, write.constant(np.array(0, number)), dtype=_BOOL, shape=(*one, 1))
    size = write.op("Where", negative, _complement(write, column), column, dtype=x.dtype, shape=(*one, 1))
    rest = write.op("Div", size, powers, dtype=x.dtype, shape=(*one, bits))
    odd = write.op("Mod", rest, write.constant(np.array(2, number)), dtype=x.dtype, shape=(*one, bits))
    plane = write.op("Equal", odd, write.constant(np.array(1, number)), dtype=_BOOL, shape=(*one, bits))
    return negative, write.op("Xor", plane, negative, dtype=_BOOL, shape=(*one, bits))


def _running_sum(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    """As the sum of products with a triangle of ones; a sum of integers has no order."""
    x = node.inputs[0]
    axis = ir.convenience.get_const_tensor(node.inputs[1])
    if x.dtype not in _INTEGERS or axis is None or not len(x.shape):
        return None
    axis, size = int(axis.numpy().reshape(())) % len(x.shape), x.shape[int(axis.numpy().reshape(()))]
    ones = np.ones((size, size), _INTEGERS[x.dtype][0])
    triangle = np.tril(ones, -1) if node.attributes.get_int("exclusive", 0) else np.tril(ones)
    triangle = triangle.T if node.attributes.get_int("reverse", 0) else triangle
    triangle = triangle.reshape(size, size, *(1,) * (len(x.shape) - axis - 1))
    wide = (*x.shape[:axis], size, *x.shape[axis:])
    if math.prod(wide) > _LARGEST_PRODUCT:
        return None
    rows = write.op("Unsqueeze", x, write.constant(np.array([axis], np.int64)), dtype=x.dtype,
                    shape=(*x.shape[:axis], 1, *x.shape[axis:]))
    terms = write.op("Mul", rows, write.constant(triangle), dtype=x.dtype, shape=wide)
    return write.op("ReduceSum", terms, write.constant(np.array([axis + 1], np.int64)), dtype=x.dtype, shape=x.shape,
                    keepdims=0)


def _product(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    """Of matrices of integers, as a sum of products."""
    a, b = node.inputs
    if a.dtype not in _INTEGERS or len(a.shape) < 2 or len(b.shape) < 2:
        return None
    out = tuple(node.outputs[0].shape)
    wide = (*out[:-1], a.shape[-1], out[-1])
    if math.prod(wide) > _LARGEST_PRODUCT:
        return None
    column = write.op("Unsqueeze", a, write.constant(np.array([-1], np.int64)), dtype=a.dtype, shape=(*a.shape, 1))
    row = write.op("Unsqueeze", b, write.constant(np.array([-3], np.int64)), dtype=b.dtype,
                   shape=(*b.shape[:-2], 1, *b.shape[-2:]))
    terms = write.op("Mul", column, row, dtype=a.dtype, shape=wide)
    return write.op("ReduceSum", terms, write.constant(np.array([-2], np.int64)), dtype=a.dtype, shape=out, keepdims=0)


def _scatter(write: NodeWriter, node: ir.Node) -> ir.Value | None:
    """Of booleans, as numbers."""
    if node.inputs[0].dtype != _BOOL:
        return None
    kind, shape = ir.DataType.INT32, node.outputs[0].shape
    x, places, updates = node.inputs
    attributes = {k: a.value for k, a in node.attributes.items()}
    made = write.op(node.op_type, write.cast(x, kind), places, write.cast(updates, kind), dtype=kind, shape=shape,
                    **attributes)
    return write.cast(made, _BOOL)


_REWRITES = {"Equal": _equal, "BitwiseNot": _bitwise_not, **dict.fromkeys(_LOGIC, _bitwise), "CumSum": _running_sum,
             "MatMul": _product, "ScatterElements": _scatter, "ScatterND": _scatter}
