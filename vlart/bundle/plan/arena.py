"""Places values in the arena. Every value is a cache that a later step may read again, so none
shares its place; offsets follow the order of the values."""

from __future__ import annotations

from collections.abc import Iterable

from vlart.bundle.format.layout import ALIGN, align_up
from vlart.bundle.plan.plan import TensorType

TENSORRT_ALIGN = 256  # bytes; of every address given to setTensorAddress (NvInferRuntime.h of TensorRT 10)


def arena_offsets(types: Iterable[TensorType], backend: str = "onnxruntime") -> tuple[list[int], int]:
    """(offset of each value in bytes, size of the arena). backend: whose engines use the values in place."""
    align = TENSORRT_ALIGN if backend == "tensorrt" else ALIGN
    offsets, end = [], 0
    for t in types:
        offsets.append(end)
        end = align_up(end + t.bytes, align)
    return offsets, end
