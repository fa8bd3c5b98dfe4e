"""Puts new nodes into an ONNX graph in the place of one, with its line of the model. Must not know what for."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir


class NodeWriter:
    """Writes before `node`. Each call of an op gives its value."""

    def __init__(self, model: ir.Model, node: ir.Node):
        self.model, self.node, self._count = model, node, 0

    def op(self, op_type: str, *inputs: ir.Value, dtype: ir.DataType, shape, **attributes) -> ir.Value:
        """shape: of the result. dtype: its element type."""
        self._count += 1
        made = ir.node(op_type, list(inputs), attributes, name=f"{self.node.name}__{op_type.lower()}_{self._count}")
        made.doc_string = self.node.doc_string
        value = made.outputs[0]
        value.name, value.shape, value.type = made.name, ir.Shape(tuple(shape)), ir.TensorType(dtype)
        self.model.graph.insert_before(self.node, made)
        return value

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        return x if x.dtype == dtype else self.op("Cast", x, dtype=dtype, shape=x.shape, to=dtype)

    def constant(self, array: np.ndarray) -> ir.Value:
        """Equal constants are one."""
        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:12]
        name = f"known_{array.dtype}_{'x'.join(map(str, array.shape))}_{digest}"
        if name not in self.model.graph.initializers:
            tensor = ir.tensor(array, name=name)
            self.model.graph.register_initializer(ir.Value(
                name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor))
        return self.model.graph.initializers[name]

    def stands_for_node(self, value: ir.Value) -> None:
        """The node leaves; what read its result, or handed it out, has `value`."""
        old = self.node.outputs[0]
        if old.is_graph_output() and (value.producer() is None or value.is_graph_output()):
            value = self.op("Identity", value, dtype=value.dtype, shape=value.shape)
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        if value.is_graph_output():  # keep the port's name
            old.name, value.name = f"{self.node.name}__replaced", old.name
        self.model.graph.remove(self.node, safe=True)
