"""Weights that Flax wrote, without JAX: its msgpack, whole (`flax.serialization`, orbax's file `checkpoint`) or as a
stream of named tensors. The file is mapped; a tensor is read when it is asked for. Must not know models.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md and flax/serialization.py (0.7 to 0.12).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from vlacompile.frontends.tensor_files import Shape, TensorFiles
from vlart.errors import SourceError

ARRAY, SCALAR, CHUNKED, DEEPEST = 1, 3, "__msgpack_chunked_array__", 64
PLACEHOLDER = "PLACEHOLDER://"  # of orbax, for a tensor that lies in a folder of its own
TYPES = {name: getattr(torch, name) for name in (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")}
_NUMBERS = {0xca: ">f", 0xcb: ">d", 0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i",
            0xd3: ">q"}
_LENGTHS = {0xc4: ("bin", 1), 0xc5: ("bin", 2), 0xc6: ("bin", 4), 0xc7: ("ext", 1), 0xc8: ("ext", 2), 0xc9: ("ext", 4),
            0xd9: ("str", 1), 0xda: ("str", 2), 0xdb: ("str", 4), 0xdc: ("array", 2), 0xdd: ("array", 4),
            0xde: ("map", 2), 0xdf: ("map", 4)}
_CONSTANTS = {0xc0: None, 0xc2: False, 0xc3: True}


@dataclass(frozen=True)
class Bytes:
    """Where they lie in the file."""

    begin: int
    end: int


@dataclass(frozen=True)
class Stored:
    """A tensor: where its elements lie, one part after the other."""

    type: torch.dtype
    shape: Shape
    parts: tuple[Bytes, ...]

    def read(self, mapped: mmap.mmap, row: int | None = None) -> torch.Tensor:
        """row: only that one of the first dimension."""
        shape = self.shape if row is None else self.shape[1:]
        count = math.prod(shape) * self.type.itemsize
        first = 0 if row is None else row * count
        found, at = [], 0
        for part in self.parts:  # bytes [first, first + count) of all parts in a row
            begin, end = max(first - at, 0), min(first + count - at, part.end - part.begin)
            if begin < end:
                found.append(torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=part.begin + begin))
            at += part.end - part.begin
        flat = torch.cat(found) if found else torch.empty(0, dtype=torch.uint8)  # copied: aligned, and no view
        return flat.view(self.type).reshape(shape)


class _Reader:
    """Elements of a msgpack file; those with bytes are left in it."""

    def __init__(self, mapped: mmap.mmap):
        self.mapped, self.at = mapped, 0

    def take(self, count: int) -> Bytes:
        found = Bytes(self.at, self.at + count)
        if found.end > len(self.mapped):
            raise ValueError("it ends too early")
        self.at = found.end
        return found

    def number(self, form: str) -> int | float:
        taken = self.take(struct.calcsize(form))
        return struct.unpack(form, self.mapped[taken.begin: taken.end])[0]

    def value(self, depth: int = 0):
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        tag = int(self.number(">B"))
        if tag < 0x80 or tag >= 0xe0:
            return tag if tag < 0x80 else tag - 256
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _NUMBERS:
            return self.number(_NUMBERS[tag])
        if tag < 0xc0:
            kind, length = ("map", tag & 15) if tag < 0x90 else ("array", tag & 15) if tag < 0xa0 else ("str", tag & 31)
        elif 0xd4 <= tag <= 0xd8:
            kind, length = "ext", 1 << (tag - 0xd4)
        elif tag in _LENGTHS:
            kind, width = _LENGTHS[tag]
            length = int(self.number({1: ">B", 2: ">H", 4: ">I"}[width]))
        else:
            raise ValueError(f"it has the byte {tag:#x}")
        return self._content(kind, length, depth)

    def _content(self, kind: str, length: int, depth: int):
        if kind == "bin":
            return self.take(length)
        if kind == "str":
            taken = self.take(length)
            return self.mapped[taken.begin: taken.end].decode()
        if kind == "array":
            return [self.value(depth + 1) for _ in range(length)]
        if kind == "map":
            return {self.value(depth + 1): self.value(depth + 1) for _ in range(length)}
        code, whole = self.number(">b"), self.take(length)
        if code not in (ARRAY, SCALAR):
            return None
        inner = _Reader(self.mapped)
        inner.at = whole.begin
        shape, name, elements = inner.value(depth + 1)
        if name not in TYPES or not isinstance(elements, Bytes):
            raise ValueError(f"it has a tensor of {name}")
        stored = Stored(TYPES[name], tuple(shape), (elements,))
        if math.prod(stored.shape) * stored.type.itemsize != elements.end - elements.begin:
            raise ValueError(f"a tensor has not the size of its shape {list(shape)}")
        return stored

    def items(self) -> Iterator[tuple[str, Stored]]:
        """Of a whole tree, or of a stream of (keys, tensor)."""
        while self.at < len(self.mapped):
            found = self.value()
            if isinstance(found, dict):
                yield from _leaves(found)
                continue
            keys, packed = found
            inner = _Reader(self.mapped)
            inner.at = packed.begin
            yield from _leaves({".".join(keys): inner.value()})


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Stored]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and CHUNKED in value:
            shape, chunks = ([part[str(i)] for i in range(len(part))] for part in (value["shape"], value["chunks"]))
            yield name, Stored(chunks[0].type, tuple(shape), tuple(p for c in chunks for p in c.parts))
        elif isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, Stored):
            yield name, value
        elif isinstance(value, str) and value.startswith(PLACEHOLDER):
            raise ValueError(f"{name} lies in a folder of its own")


def flax_file(path: Path, stacked: Callable[[str], str | None] = lambda name: None) -> TensorFiles:
    """Names are the keys, joined by dots. stacked: gives for a tensor that holds all layers in its first dimension the
    names of the layers' own, with "*" for the number. Raises SourceError."""
    try:
        with path.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        found = dict(_Reader(mapped).items())
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=f"as msgpack of Flax: {error}",
                          fix=_again(path)) from error
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    shapes: dict[str, Shape] = {}
    for name, stored in found.items():
        pattern = stacked(name)
        if pattern is None:
            readers[name], shapes[name] = partial(stored.read, mapped), stored.shape
            continue
        for row in range(stored.shape[0]):
            own = pattern.replace("*", str(row))
            readers[own], shapes[own] = partial(stored.read, mapped, row), stored.shape[1:]
    return TensorFiles(path, readers, shapes)


def orbax_file(path: Path) -> Path:
    """The file with all tensors of a checkpoint that orbax wrote: of its last step, if the directory has several.
    Raises SourceError if each tensor lies in a file of its own."""
    if path.is_file():
        return path
    steps = sorted((p for p in path.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))
    folder = steps[-1] if steps else path
    folder = folder / "default" if (folder / "default").is_dir() else folder
    if not (folder / "checkpoint").is_file():
        raise SourceError(f"{folder.name} has no file with all tensors", where=str(folder / "checkpoint"),
                          why="orbax wrote them to files of their own, or this is no checkpoint of it",
                          fix=_again(folder))
    return folder / "checkpoint"


def _again(path: Path) -> str:
    folder = path.parent if path.is_file() else path
    code = ("import orbax.checkpoint as o, flax.serialization as f; open('weights.msgpack', 'wb').write("
            f"f.msgpack_serialize(o.PyTreeCheckpointer().restore('{folder}')))")
    return f'copy it again, or write all tensors to one file where orbax is: python -c "{code}"'
