"""Frames files: inputs and expected outputs, for golden vectors and for recorded episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlacompile import vocabulary
from vlacompile.bundle.format import layout
from vlacompile.bundle.format.sections import SectionReader, SectionWriter
from vlacompile.verify.metrics import Metrics


@dataclass(frozen=True)
class Expected:
    array: np.ndarray
    limit: Metrics


@dataclass(frozen=True)
class Frame:
    """writes: {source name: array}; expects: {value name: array and limits}. references: {policy output: its value in
    full precision, and the deviation of the reduced precision at build time}, empty if precision was not reduced."""

    label: str
    writes: dict[str, np.ndarray]
    expects: dict[str, Expected] = field(default_factory=dict)
    references: dict[str, Expected] = field(default_factory=dict)


def frames_bytes(frames: Sequence[Frame]) -> bytes:
    w = SectionWriter(layout.FRAMES_MAGIC, layout.FRAMES_SECTIONS)
    stored: dict[tuple, int] = {}

    def tensor(name: str, array: np.ndarray, limit: Metrics) -> None:
        array = np.asarray(array, order="C")  # ascontiguousarray would add a dimension to a scalar
        raw = array.tobytes()
        offset = stored.get((raw,))
        if offset is None:
            offset = stored[(raw,)] = w.blob(raw)
        dtype = vocabulary.dtype_name(array.dtype.str)
        assert dtype is not None, array.dtype
        w.add("tensors", name=w.string(name), dtype=vocabulary.DTYPES[dtype], rank=array.ndim,
              dims=tuple(array.shape) + (1,) * (layout.MAX_RANK - array.ndim), offset=offset, bytes=array.nbytes,
              max_abs=limit.max_abs, rel_l2=limit.rel_l2, cosine=limit.cosine)

    for frame in frames:
        first = len(w.records["tensors"])
        for name, array in frame.writes.items():
            tensor(name, array, Metrics(0.0, 0.0, 0.0))
        middle = len(w.records["tensors"])
        for name, expected in frame.expects.items():
            tensor(name, expected.array, expected.limit)
        last = len(w.records["tensors"])
        for name, expected in frame.references.items():
            tensor(name, expected.array, expected.limit)
            w.add("references", frame=len(w.records["frames"]), tensor=len(w.records["tensors"]) - 1)
        w.add("frames", label=w.string(frame.label), write_begin=first, write_count=middle - first,
              expect_begin=middle, expect_count=last - middle)
    return w.to_bytes()


def read_frames(path: Path) -> list[Frame]:
    """Raises BundleError if the file is damaged."""
    r = SectionReader(path, layout.FRAMES_MAGIC)
    blob, names = r.raw("blob"), {v: k for k, v in vocabulary.DTYPES.items()}
    tensors = []
    for row in r.rows("tensors"):
        raw = blob[row["offset"]: row["offset"] + row["bytes"]]
        array = np.frombuffer(raw, vocabulary.NUMPY_DTYPES[names[row["dtype"]]]).reshape(row["dims"][: row["rank"]])
        tensors.append((r.string(row["name"]), array, Metrics(row["max_abs"], row["rel_l2"], row["cosine"])))

    references: dict[int, list[tuple]] = defaultdict(list)
    for row in r.rows("references"):
        references[row["frame"]].append(tensors[row["tensor"]])

    def part(row: dict, what: str) -> list[tuple]:
        return tensors[row[f"{what}_begin"]: row[f"{what}_begin"] + row[f"{what}_count"]]

    return [Frame(r.string(row["label"]), {n: a for n, a, _ in part(row, "write")},
                  {n: Expected(a, m) for n, a, m in part(row, "expect")},
                  {n: Expected(a, m) for n, a, m in references[i]}) for i, row in enumerate(r.rows("frames"))]
