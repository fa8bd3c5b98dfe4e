"""Frames files: inputs to write and outputs to expect. Golden vectors and recorded episodes alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vlacompile.bundle import layout
from vlacompile.bundle.sections import SectionReader, SectionWriter
from vlacompile.policy import TORCH_DTYPES, Source
from vlacompile.verify.metrics import Metrics

_NUMPY = {"f32": np.float32, "u8": np.uint8, "i8": np.int8, "i32": np.int32, "i64": np.int64, "bool": np.bool_,
          "f16": np.float16, "f64": np.float64}


@dataclass(frozen=True)
class Expected:
    array: np.ndarray
    limit: Metrics


@dataclass(frozen=True)
class Frame:
    """writes: {source name: array}; expects: {value name: array and limits}."""

    label: str
    writes: dict[str, np.ndarray]
    expects: dict[str, Expected] = field(default_factory=dict)


def frames_bytes(frames: Sequence[Frame]) -> bytes:
    w = SectionWriter(layout.FRAMES_MAGIC, layout.FRAMES_SECTIONS)
    stored: dict[tuple, int] = {}

    def tensor(name: str, array: np.ndarray, limit: Metrics) -> None:
        array = np.ascontiguousarray(array)
        raw = array.tobytes()
        offset = stored.get((raw,))
        if offset is None:
            offset = stored[(raw,)] = w.blob(raw)
        dtype = TORCH_DTYPES[torch.from_numpy(array).dtype]
        w.add("tensors", name=w.string(name), dtype=layout.DTYPES[dtype], rank=array.ndim, reserved=0,
              dims=tuple(array.shape) + (1,) * (layout.MAX_RANK - array.ndim), offset=offset, bytes=array.nbytes,
              max_abs=limit.max_abs, rel_l2=limit.rel_l2, cosine=limit.cosine, reserved2=0.0)

    for frame in frames:
        first = len(w.records["tensors"])
        for name, array in frame.writes.items():
            tensor(name, array, Metrics(0.0, 0.0, 0.0))
        middle = len(w.records["tensors"])
        for name, expected in frame.expects.items():
            tensor(name, expected.array, expected.limit)
        w.add("frames", label=w.string(frame.label), reserved=0, write_begin=first, write_count=middle - first,
              expect_begin=middle, expect_count=len(w.records["tensors"]) - middle)
    return w.to_bytes()


def read_frames(path: Path) -> list[Frame]:
    """Raises BundleError when the file is damaged."""
    r = SectionReader(path, layout.FRAMES_MAGIC)
    blob, names = r.raw("blob"), {v: k for k, v in layout.DTYPES.items()}
    tensors = []
    for row in r.rows("tensors"):
        raw = blob[row["offset"]: row["offset"] + row["bytes"]]
        array = np.frombuffer(raw, _NUMPY[names[row["dtype"]]]).reshape(row["dims"][: row["rank"]])
        tensors.append((r.string(row["name"]), array, Metrics(row["max_abs"], row["rel_l2"], row["cosine"])))

    def part(row: dict, what: str) -> list[tuple]:
        return tensors[row[f"{what}_begin"]: row[f"{what}_begin"] + row[f"{what}_count"]]

    return [Frame(r.string(row["label"]), {n: a for n, a, _ in part(row, "write")},
                  {n: Expected(a, m) for n, a, m in part(row, "expect")}) for row in r.rows("frames")]


def golden_inputs(sources: dict[str, Source], example: dict[str, torch.Tensor], count: int,
                  seed: int) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Inputs that exercise every cache: first the example; then everything but the task anew; then one
    source at a time; the rest all anew. [(label, {name: tensor})], deterministic in `seed`."""
    rng = np.random.default_rng(seed)
    live = [n for n, s in sources.items() if s.update != "static"]
    fast = [n for n in live if sources[n].update != "task"]
    frames = [("example", dict(example))]
    plans = [("observations changed", fast), ("task changed", [n for n in live if n not in fast])]
    plans += [(f"{name} changed", [name]) for name in fast]
    while len(frames) < count:
        label, changed = plans[len(frames) - 1] if len(frames) <= len(plans) else ("all changed", live)
        inputs = dict(frames[-1][1])
        inputs |= {n: _vary(example[n], rng) for n in changed}
        frames.append((label, inputs))
    return frames


def _vary(example: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another tensor of the same kind, near enough to be an input of the same policy: floats are disturbed,
    byte images shifted and made noisy, integers permuted (ids stay in their range), booleans kept."""
    array = example.numpy()
    if array.dtype.kind == "f":
        spread = float(array.std()) or 1.0
        return torch.from_numpy((array + 0.1 * spread * rng.standard_normal(array.shape)).astype(array.dtype))
    if array.dtype == np.uint8:
        shifted = np.roll(array, rng.integers(1, 9, array.ndim), range(array.ndim)) if array.ndim < 3 else np.roll(
            array, rng.integers(1, 9, 2), (-3, -2))
        return torch.from_numpy(np.clip(shifted + rng.integers(-8, 9, array.shape), 0, 255).astype(np.uint8))
    if array.dtype.kind == "i":
        return torch.from_numpy(rng.permutation(array.ravel()).reshape(array.shape))
    return example
