"""Frames files: inputs and expected outputs, for golden vectors and for recorded episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vlart import vocabulary
from vlart.bundle.directory import GOLDEN_FILE
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionReader, SectionWriter
from vlart.errors import BundleError
from vlart.verify.metrics import Limit, Metrics


@dataclass(frozen=True)
class Expected:
    array: np.ndarray
    limit: Metrics


@dataclass(frozen=True)
class Frame:
    """writes: {source name: array}; expects: {value name: array and limits}. references: {policy output: its value in
    full precision, and the deviation of the reduced precision at build time}, empty if precision was not reduced. edge:
    whether the inputs are an edge case; known while building only. begins: an episode begins with this frame; the
    others follow on the one before them."""

    label: str
    writes: dict[str, np.ndarray]
    expects: dict[str, Expected] = field(default_factory=dict)
    references: dict[str, Expected] = field(default_factory=dict)
    edge: bool = False
    begins: bool = False


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
        if isinstance(limit, Limit) and limit.columns:
            begin, count = w.scalars("floats", limit.columns)
            w.add("limits", tensor=len(w.records["tensors"]) - 1, column_begin=begin, column_count=count)

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
        w.add("frames", label=w.string(frame.label), begins=int(frame.begins), write_begin=first,
              write_count=middle - first, expect_begin=middle, expect_count=last - middle)
    return w.to_bytes()


def golden_frames(bundle: Path) -> list[Frame]:
    """Of a bundle's directory. Raises BundleError if there are none, or they are damaged."""
    frames = read_frames(bundle / GOLDEN_FILE)
    if not any(f.expects for f in frames):
        raise BundleError("the bundle has no golden frames", where=str(bundle / GOLDEN_FILE),
                          why=f"it has {len(frames)} frames, none of which expects a value, so nothing can be compared",
                          fix="build the bundle again, with this version of vlacompile")
    return frames


def read_frames(path: Path) -> list[Frame]:
    """Raises BundleError if the file is damaged."""
    r = SectionReader(path, layout.FRAMES_MAGIC)
    blob, names = r.raw("blob"), {v: k for k, v in vocabulary.DTYPES.items()}
    columns = {row["tensor"]: row for row in r.rows("limits")}
    floats = r.scalars("floats") if columns else ()
    tensors = []
    for i, row in enumerate(r.rows("tensors")):
        raw = blob[row["offset"]: row["offset"] + row["bytes"]]
        array = np.frombuffer(raw, vocabulary.NUMPY_DTYPES[names[row["dtype"]]]).reshape(row["dims"][: row["rank"]])
        own = columns.get(i, {"column_begin": 0, "column_count": 0})
        limit = Limit(row["max_abs"], row["rel_l2"], row["cosine"],
                      floats[own["column_begin"]: own["column_begin"] + own["column_count"]])
        tensors.append((r.string(row["name"]), array, limit))

    references: dict[int, list[tuple]] = defaultdict(list)
    for row in r.rows("references"):
        references[row["frame"]].append(tensors[row["tensor"]])

    def part(row: dict, what: str) -> list[tuple]:
        return tensors[row[f"{what}_begin"]: row[f"{what}_begin"] + row[f"{what}_count"]]

    return [Frame(r.string(row["label"]), {n: a for n, a, _ in part(row, "write")},
                  {n: Expected(a, m) for n, a, m in part(row, "expect")},
                  {n: Expected(a, m) for n, a, m in references[i]}, begins=row["begins"] == 1)
            for i, row in enumerate(r.rows("frames"))]
