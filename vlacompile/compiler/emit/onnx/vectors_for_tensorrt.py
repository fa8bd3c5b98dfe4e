"""Softmax and arg-maxima of a vector, computed on a matrix of one row: TensorRT-RTX 1.7.1 requires at least two
dimensions of their input (TensorRT's ISoftMaxLayer and ITopKLayer)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlacompile.compiler.emit.onnx.node_writer import NodeWriter

_OPS = frozenset({"Softmax", "LogSoftmax", "ArgMax", "ArgMin"})


def vectors_for_tensorrt(model: ir.Model) -> None:
    for node in [n for n in model.graph if n.op_type in _OPS and len(n.inputs[0].shape) == 1]:
        write, x, y = NodeWriter(model, node), node.inputs[0], node.outputs[0]
        axis = write.constant(np.array([0], np.int64))
        row = write.op("Unsqueeze", x, axis, dtype=x.dtype, shape=(1, *x.shape))
        attributes = {name: a.value for name, a in node.attributes.items()} | {"axis": 1}
        computed = write.op(node.op_type, row, dtype=y.dtype, shape=(1, *y.shape), **attributes)
        write.stands_for_node(write.op("Squeeze", computed, axis, dtype=y.dtype, shape=y.shape))
