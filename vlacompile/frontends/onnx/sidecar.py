"""The sidecar of an ONNX file: each input's update class, its size if dynamic in the file, and its range.

Read from `policy.sources.toml` beside `policy.onnx`, else from the model's metadata "vlacompile.sources" (the same
text). Nothing is inferred from names:

    name = "pick"                     # of the policy; default: the file's name
    outputs = ["action"]              # names and order; default: all, in the model's order
    execute = 8                       # actions of a chunk executed per replan; default: all
    examples = "policy.npz"           # arrays by input name; default: generated

    [inputs."observation.images.base"]
    update = "observation"            # static, task, observation, step or tick
    clock_hz = 10.0
    [inputs.tokens]
    update = "task"
    shape = [1, 48]                   # only for dynamic dimensions
    range = [0, 31999]                # smallest and largest value; required for integers
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from vlacompile.frontends.onnx.elementwise import TYPES
from vlacompile.policy.policy import Source
from vlart.errors import ConfigError, SourceError, nearest
from vlart.files.tables import from_table
from vlart.vocabulary import UPDATES

METADATA = "vlacompile.sources"


@dataclass(frozen=True)
class Input:
    update: str
    clock_hz: float | None = None
    shape: tuple[int, ...] | None = None
    range: tuple[float, ...] | None = None


@dataclass(frozen=True)
class _Document:
    name: str | None = None
    outputs: tuple[str, ...] | None = None
    execute: int | None = None
    examples: str | None = None


@dataclass(frozen=True)
class Sidecar:
    """inputs: {name: Input}, of all inputs of the model. where: the file, for error messages."""

    document: _Document
    inputs: dict[str, Input]
    where: str
    folder: Path = field(default=Path())


@dataclass(frozen=True)
class Wanted:
    """An input of the model. dims: numbers; names or None for dynamic dimensions."""

    name: str
    dtype: torch.dtype
    dims: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {str(self.dtype).removeprefix('torch.')}[{','.join(str(d or '?') for d in self.dims)}]"


def inputs_of(model: ir.Model, where: str) -> list[Wanted]:
    """Raises SourceError for an input that is not a tensor of a known type."""
    wanted = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        kind = int(value.dtype) if value.dtype is not None else None
        if kind not in TYPES or value.shape is None:
            raise SourceError(f'input "{value.name}" is a {value.type}', where=where,
                              why="inputs are tensors of numbers with a known rank", fix="export the model without it")
        dims = tuple(d if isinstance(d, int) else d.value for d in value.shape.dims)
        wanted.append(Wanted(value.name, TYPES[kind], dims))
    return wanted


def read_sidecar(path: Path, model: ir.Model, wanted: list[Wanted]) -> Sidecar:
    """Raises SourceError if there is none, or if it does not fit the model's inputs."""
    file = path.with_suffix(".sources.toml")
    if file.is_file():
        where, text = str(file), _text(file)
    elif METADATA in model.metadata_props:
        where, text = f"{path}, metadata {METADATA}", model.metadata_props[METADATA]
    else:
        raise SourceError("the update classes of the inputs are not declared", where=str(path),
                          why=f"neither {file.name} nor metadata {METADATA}; inputs: {'; '.join(map(str, wanted))}",
                          fix=f"write {file.name} with one of {', '.join(UPDATES)} in each update: {skeleton(wanted)}")
    try:
        table = tomllib.loads(text)
        tables = table.pop("inputs", {})
        document = from_table(_Document, table, where)
        inputs = {n: from_table(Input, t if isinstance(t, dict) else {}, where, f"inputs.{n}.")
                  for n, t in tables.items()}
    except tomllib.TOMLDecodeError as error:
        raise SourceError("the sidecar is not valid TOML", where=where, why=str(error),
                          fix="correct that line") from error
    except (ConfigError, AttributeError) as error:
        if isinstance(error, AttributeError):
            raise SourceError('"inputs" is not a table', where=where, why="it must be {input name: table}",
                              fix=f"write {skeleton(wanted)}") from error
        raise SourceError(error.what, where=error.where, why=error.why, fix=error.fix) from error
    _check(inputs, wanted, where)
    return Sidecar(document, inputs, where, path.parent)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError("the sidecar cannot be read", where=str(file), why=str(error),
                          fix="write it as UTF-8 text") from error


def skeleton(wanted: list[Wanted]) -> str:
    """One line of TOML to be filled in."""

    def entry(w: Wanted) -> str:
        parts = ['update = ""']
        if not all(isinstance(d, int) for d in w.dims):
            sizes = (str(d) if isinstance(d, int) else f'"{d or "?"}"' for d in w.dims)
            parts.append(f"shape = [{', '.join(sizes)}]")
        if _needs_range(w.dtype):
            parts.append("range = [0, ?]")
        return f'"{w.name}" = {{ {", ".join(parts)} }}'

    return f"inputs = {{ {', '.join(map(entry, wanted))} }}"


def _needs_range(dtype: torch.dtype) -> bool:
    return dtype in (torch.int8, torch.int32, torch.int64)


def _check(inputs: dict[str, Input], wanted: list[Wanted], where: str) -> None:
    names = [w.name for w in wanted]
    for name in inputs:
        if name not in names:
            raise SourceError(f'the model has no input "{name}"', where=where, why=nearest(name, names),
                              fix="correct the name, or remove it")
    missing = [w for w in wanted if w.name not in inputs]
    if missing:
        raise SourceError(f"no update class is declared for {', '.join(w.name for w in missing)}", where=where,
                          why=f"every input needs an update class; the model has {'; '.join(map(str, wanted))}",
                          fix=f"add {skeleton(missing)}")
    for name, i in inputs.items():
        if i.update not in UPDATES:
            raise SourceError(f'"{i.update}" is not an update class', where=f"{where}, inputs.{name}.update",
                              why=nearest(i.update, UPDATES), fix="choose how often this input changes")
        if i.range is not None and (len(i.range) != 2 or not i.range[0] <= i.range[1]):
            raise SourceError(f"range = {list(i.range)} is not a range", where=f"{where}, inputs.{name}.range",
                              why="it must be the smallest and the largest value",
                              fix="write range = [0, 31999], for example")


def sources_of(sidecar: Sidecar) -> dict[str, Source]:
    return {n: Source(i.update, i.clock_hz) for n, i in sidecar.inputs.items()}


def shapes_of(sidecar: Sidecar, wanted: list[Wanted]) -> dict[str, tuple[int, ...]]:
    """{input: its fixed shape}. Raises SourceError if a dimension stays dynamic or is contradicted."""
    shapes, named = {}, {}
    for w in wanted:
        given = sidecar.inputs[w.name].shape
        fixed = all(isinstance(d, int) for d in w.dims)
        if given is None and not fixed:
            raise SourceError(f'the size of "{w.name}" is dynamic', where=sidecar.where,
                              why=f"the model has {w}; a bundle's sizes are fixed",
                              fix=f'write shape = [...] with {len(w.dims)} numbers in inputs."{w.name}"')
        shape = w.dims if given is None else given
        fits = len(shape) == len(w.dims) and all(s > 0 and (not isinstance(d, int) or s == d)
                                                 for s, d in zip(shape, w.dims, strict=True))
        for d, s in zip(w.dims, shape, strict=False):
            fits = fits and (not isinstance(d, str) or named.setdefault(d, s) == s)
        if not fits:
            raise SourceError(f'shape = {list(shape)} does not fit "{w.name}"', where=sidecar.where,
                              why=f"the model has {w}; a named size must be the same everywhere",
                              fix="correct the shape, or remove it if the model's is fixed")
        shapes[w.name] = tuple(shape)
    return shapes


def examples_of(sidecar: Sidecar, wanted: list[Wanted]) -> dict[str, torch.Tensor]:
    """From the sidecar's .npz, else plausible ones: smooth random images for uint8, standard normal numbers for floats,
    true for booleans, numbers within the range for integers. Raises SourceError."""
    shapes = shapes_of(sidecar, wanted)
    if sidecar.document.examples is not None:
        return _given(sidecar, wanted, shapes)
    draw = torch.Generator().manual_seed(0)
    return {w.name: _generated(sidecar, w, shapes[w.name], draw) for w in wanted}


def _given(sidecar: Sidecar, wanted: list[Wanted], shapes: dict) -> dict[str, torch.Tensor]:
    path = sidecar.folder / sidecar.document.examples
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {n: torch.from_numpy(np.ascontiguousarray(file[n])) for n in file.files}
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise SourceError("the examples cannot be read", where=str(path), why=str(error),
                          fix="write them with numpy.savez(path, **{input name: array})") from error
    for w in wanted:
        if w.name not in arrays:
            raise SourceError(f'there is no example of "{w.name}"', where=str(path), why=nearest(w.name, arrays),
                              fix="write one array per input of the model")
        a = arrays[w.name]
        if tuple(a.shape) != shapes[w.name] or a.dtype != w.dtype:
            raise SourceError(f'the example of "{w.name}" is {a.dtype} {list(a.shape)}', where=str(path),
                              why=f"the model has {w}", fix=f"write an array of shape {list(shapes[w.name])}")
    return {w.name: arrays[w.name] for w in wanted}


def _generated(sidecar: Sidecar, w: Wanted, shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    bounds = sidecar.inputs[w.name].range
    if bounds is not None and w.dtype.is_floating_point:
        return (bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=draw)).to(w.dtype)
    if bounds is not None and w.dtype is not torch.bool:
        return torch.randint(int(bounds[0]), int(bounds[1]) + 1, shape, generator=draw).to(w.dtype)
    if _needs_range(w.dtype):
        raise SourceError(f'the range of the integers in "{w.name}" is not declared', where=sidecar.where,
                          why="a generated token outside the vocabulary would be an invalid example",
                          fix=f'write range = [smallest, largest] in inputs."{w.name}", or give examples = "FILE.npz"')
    if w.dtype is torch.bool:
        return torch.ones(shape, dtype=torch.bool)
    if w.dtype is torch.uint8:
        return _picture(shape, draw)
    return torch.randn(shape, generator=draw).to(w.dtype)


def _picture(shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
    """uint8 values that vary smoothly along every axis of more than eight elements."""
    coarse = torch.rand([min(n, 8) for n in shape], generator=draw)
    for axis, n in enumerate(shape):
        coarse = coarse.index_select(axis, torch.arange(n) * coarse.shape[axis] // n)
    return (coarse * 255).to(torch.uint8)
