"""Stores weights that 16 bits represent exactly in 16 bits; the engine converts them to f32 when it loads."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from vlacompile.files.mapped import mapped_empty
from vlart.files.pieces import CHUNK_BYTES

LEAST_BYTES = 1 << 12  # smaller weights are not worth another node


def store_fp16(model: ir.Model) -> None:
    """Stores every f32 matrix that is exact in bf16, or else fp16, in that dtype followed by a Cast, in place. The
    engine folds the Cast when it loads, so products read f32 as before. For checkpoints that were saved in 16 bits."""
    for value in list(model.graph.initializers.values()):
        uses = list(value.uses())
        if value.dtype != ir.DataType.FLOAT or not uses or value.is_graph_output() or len(value.shape) < 2:
            continue
        array = value.const_value.numpy()
        half = _exact(array) if array.nbytes >= LEAST_BYTES else None
        if half is None:
            continue
        tensor = ir.tensor(half, name=f"{value.name}__16")
        stored = ir.Value(name=tensor.name, shape=value.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{value.name}__wide")
        cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].dtype = cast.name, value.shape, ir.DataType.FLOAT
        del model.graph.initializers[value.name]
        model.graph.register_initializer(stored)
        for node, i in uses:
            node.replace_input_with(i, cast.outputs[0])
        model.graph.insert_before(model.graph[0], cast)


def _exact(array: np.ndarray) -> np.ndarray | None:
    return next((half for kind in (ml_dtypes.bfloat16, np.float16) if (half := _stored(array, kind)) is not None), None)


def _stored(array: np.ndarray, kind: type) -> np.ndarray | None:
    """The array in that dtype, in a mapped file; None if a number changes. Without a whole copy in memory."""
    half = mapped_empty(array.shape, torch.int16).numpy().view(kind)
    count = max(1, CHUNK_BYTES // (array.nbytes // len(array)))
    for first in range(0, len(array), count):
        rows = np.ascontiguousarray(array[first:first + count])
        with np.errstate(over="ignore"):
            narrow = rows.astype(kind)
        if not np.array_equal(narrow.astype(np.float32).view(np.int32), rows.view(np.int32)):
            return None
        half[first:first + count] = narrow
    return half
