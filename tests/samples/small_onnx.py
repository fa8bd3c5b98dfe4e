"""ONNX files of a few nodes, for what engines make of single patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def weight(name: str, *shape: int, dtype=np.float16) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape) * 0.05
    return onnx.numpy_helper.from_array((values * 127 if dtype == np.int8 else values).astype(dtype), name)


def scalar(name: str, value, dtype) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array(value, dtype), name)


def write(path: Path, nodes, inputs, outputs, tensors=(), opset: int = 21) -> Path:
    info = [[helper.make_tensor_value_info(n, t, s) for n, t, s in ports] for ports in (inputs, outputs)]
    model = helper.make_model(helper.make_graph(nodes, "g", *info, list(tensors)),
                              opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def product(path: Path, kind=TensorProto.FLOAT16, dtype=np.float16) -> Path:
    """One product of 64x256 with 256x512."""
    return write(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], [("x", kind, [64, 256])],
                 [("y", kind, [64, 512])], [weight("w", 256, 512, dtype=dtype)])
