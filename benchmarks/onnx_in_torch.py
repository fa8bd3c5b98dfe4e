"""A stage's ONNX file run by PyTorch on a device: the frontend's translation, with quantisation written out as what
ONNX says that it means (divide, round to even, clip; multiply)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper

from vlacompile.check.layer_runners import Run
from vlacompile.frontends.onnx.translate import check_ops, translate
from vlart.errors import SourceError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@contextlib.contextmanager
def opened(path: Path, device: str) -> Iterator[Run]:
    """Raises SourceError for an op that is not translated, and for quantisation in blocks or with a zero point."""
    proto = without_quantisation(onnx.load(path), str(path))
    model, where = ir.from_proto(proto), str(path)
    check_ops(model, where)
    given = {v.name: np.zeros([d.dim_value for d in v.type.tensor_type.shape.dim],
                              helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)) for v in proto.graph.input}
    module = translate(model, {n: torch.from_numpy(a) for n, a in given.items()},
                       tuple(o.name for o in proto.graph.output), where).eval().to(device)
    module.constants = {n: t.to(device) for n, t in module.constants.items()}

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        placed = {n: torch.from_numpy(np.array(feed[n], a.dtype).reshape(a.shape)).to(device)
                  for n, a in given.items()}
        with torch.no_grad():
            return {n: t.cpu().numpy() for n, t in module(**placed).items()}
    yield run


def _symmetric_int8(node: onnx.NodeProto, attributes: Mapping[str, object], zeros: set[str]) -> bool:
    point = node.input[2] if len(node.input) > 2 else ""
    if node.op_type == "DequantizeLinear":
        return not point or point in zeros
    return point in zeros or (not point and attributes.get("output_dtype") == TensorProto.INT8)


def without_quantisation(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The same graph without QuantizeLinear and DequantizeLinear."""
    graph, nodes, made = model.graph, [], []
    types = {i.name: (i.data_type, len(i.dims)) for i in graph.initializer}
    types |= {v.name: (v.type.tensor_type.elem_type, len(v.type.tensor_type.shape.dim))
              for v in (*graph.input, *graph.output, *graph.value_info)}

    zeros = {i.name for i in graph.initializer
             if i.data_type == TensorProto.INT8 and not onnx.numpy_helper.to_array(i).any()}

    def op(kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        name = out or f"written_out_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(name: str, array: np.ndarray) -> str:
        made.append(onnx.numpy_helper.from_array(array, name))
        return name

    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            nodes.append(node)
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        x, scale = node.input[0], node.input[1]
        rank = types[x][1]
        axis = attributes.get("axis", 1) % max(rank, 1)
        if attributes.get("block_size") or types[scale][0] not in FLOATS or types[scale][1] > 1:
            raise SourceError(f"{node.op_type} in blocks is not run by PyTorch here", where=f"{where}, {node.name}",
                              why="its scale has several dimensions", fix="quantise to int8")
        if not _symmetric_int8(node, attributes, zeros):
            raise SourceError(f"{node.op_type} is not to symmetric int8", where=f"{where}, {node.name}",
                              why="its zero point is not zero, or its type another", fix="quantise to int8")
        wide = op("Cast", scale, to=TensorProto.FLOAT)
        if types[scale][1] == 1:
            shape = np.array([-1 if d == axis else 1 for d in range(rank)], np.int64)
            wide = op("Reshape", wide, constant(f"shape_{len(nodes)}", shape))
        x = op("Cast", x, to=TensorProto.FLOAT)
        if node.op_type == "DequantizeLinear":
            op("Cast", op("Mul", x, wide), out=node.output[0], to=types[scale][0])
        else:
            low, high = (constant(f"bound_{len(nodes)}_{end}", np.array(end, np.float32)) for end in (-128, 127))
            op("Cast", op("Clip", op("Round", op("Div", x, wide)), low, high), out=node.output[0], to=TensorProto.INT8)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(made)
    return model
