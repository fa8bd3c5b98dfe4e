"""Weights that TensorFlow wrote, without TensorFlow: a checkpoint (`NAME.index` and its `NAME.data-*`), as
`tf.train.Checkpoint` and a saved model have it. The data are mapped; a tensor is read when it is asked for. Must not
know models.

Format: tensorflow/core/util/tensor_bundle (an index of name -> entry) and tensorflow/core/lib/io/table_format.txt (the
sorted table that the index is, LevelDB's); entries are protobufs of core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from vlacompile.frontends.tensor_files import Shape, TensorFiles
from vlart.errors import SourceError

INDEX = ".index"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # how the name of every variable of an object ends
PLAIN, SNAPPY = 0, 1  # how a block is packed
FOOTER, HANDLES, MAGIC, TRAILER = 48, 40, 0xdb4775248b80fb57, 5  # bytes; a trailer is behind each block
TYPES = {1: torch.float32, 2: torch.float64, 3: torch.int32, 4: torch.uint8, 5: torch.int16, 6: torch.int8,
         9: torch.int64, 10: torch.bool, 14: torch.bfloat16, 19: torch.float16}  # of core/framework/types.proto
_VARINT, _I64, _BYTES, _I32 = 0, 1, 2, 5  # how a field of a protobuf is written
_WIDTHS = {_I64: 8, _I32: 4}


def tensorflow_files(index: Path) -> TensorFiles:
    """index: `NAME.index`. Names are those of the variables, joined by dots. Text is left out: the graph of objects.
    Raises SourceError."""
    try:
        found = dict(_table(index.read_bytes()))
        shards = _header(found.pop(b""))
        mapped: dict[int, mmap.mmap] = {}
        readers: dict[str, Callable[[], torch.Tensor]] = {}
        shapes: dict[str, Shape] = {}
        for key, value in found.items():
            entry = _fields(value)
            if _number(entry, 1) not in TYPES:
                continue
            if 7 in entry:
                raise ValueError(f"{key.decode()} is in slices")
            name = key.decode().removesuffix(VALUE).replace("/", ".")
            kind, shape = TYPES[_number(entry, 1)], _shape(entry)
            number, begin, size = (_number(entry, i) for i in (3, 4, 5))
            if number not in mapped:
                mapped[number] = _mapped(index.with_name(f"{index.stem}.data-{number:05}-of-{shards:05}"))
            if math.prod(shape) * kind.itemsize != size or begin + size > len(mapped[number]):
                raise ValueError(f"{name} has not the size of its shape {list(shape)}")
            readers[name], shapes[name] = partial(_read, mapped[number], kind, shape, begin), shape
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise SourceError(f"{index.name} cannot be read", where=str(index), why=f"as a checkpoint of TensorFlow: "
                          f"{error}", fix="copy the index and its data again, completely") from error
    return TensorFiles(index, readers, shapes)


def tensorflow_index(path: Path) -> Path:
    """The index of a checkpoint: the file, `NAME` or `NAME.data-*` of one, or a directory that has one. Raises
    SourceError."""
    if path.is_file():
        return path.with_name(path.name.partition(".data-")[0] + INDEX) if ".data-" in path.name else path
    if not path.is_dir():
        return path.with_name(path.name + INDEX)
    found = sorted(path.glob(f"*{INDEX}"))
    if len(found) != 1:
        named = f"it has {', '.join(p.name for p in found[:3])}" if found else f"it has no *{INDEX}"
        raise SourceError("the directory has not one checkpoint of TensorFlow", where=str(path), why=named,
                          fix=f"give the file: --weights {found[-1] if found else path / f'NAME{INDEX}'}")
    return found[0]


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)


def _read(mapped: mmap.mmap, kind: torch.dtype, shape: Shape, begin: int) -> torch.Tensor:
    count = math.prod(shape) * kind.itemsize
    taken = torch.frombuffer(mapped, dtype=torch.uint8, count=count, offset=begin) if count else torch.empty(
        0, dtype=torch.uint8)
    return taken.clone().view(kind).reshape(shape)


# the table: blocks of sorted keys, each of which begins as the one before it does


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = data[-FOOTER:]
    if len(data) < FOOTER or int.from_bytes(footer[HANDLES:], "little") != MAGIC:
        raise ValueError("it has no table's end")
    _, at = _handle(footer, 0)  # of a block about blocks, which is empty
    place, _ = _handle(footer, at)
    for _, value in _block(data, *place):
        yield from _block(data, *_handle(value, 0)[0])


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """((begin, size) of a block, behind it)"""
    begin, at = _varint(data, at)
    size, at = _varint(data, at)
    return (begin, size), at


def _block(data: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = data[begin: begin + size]
    if len(block) < size or begin + size + TRAILER > len(data):
        raise ValueError("it ends too early")
    if checksum(data[begin: begin + size + 1]) != data[begin + size + 1: begin + size + TRAILER]:
        raise ValueError("its checksum is another one")
    if data[begin + size] not in (PLAIN, SNAPPY):
        raise ValueError(f"its compression {data[begin + size]} is unknown")
    block = _unpacked(block) if data[begin + size] == SNAPPY else block
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))  # where its restart points begin
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at: at + own]
        yield key, block[at + own: at + own + length]
        at += own + length


def checksum(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), turned and shifted as TensorFlow keeps it."""
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ _CASTAGNOLI[(crc ^ byte) & 255]
    crc ^= 0xffffffff
    return ((crc >> 15 | crc << 17 & 0xffffffff) + 0xa282ead8 & 0xffffffff).to_bytes(4, "little")


def _remainder(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x82f63b78 if number & 1 else 0)
    return number


_CASTAGNOLI = [_remainder(i) for i in range(256)]


def _unpacked(data: bytes) -> bytes:
    """Of snappy (github.com/google/snappy, format_description.txt): pieces, and copies of what came before."""
    length, at = _varint(data, 0)
    found = bytearray()
    while at < len(data):
        tag, at = data[at], at + 1
        kind, count = tag & 3, tag >> 2
        if kind == 0:
            extra = max(0, count - 59)  # bytes that the length takes
            count = int.from_bytes(data[at: at + extra], "little") if extra else count
            found += data[at + extra: at + extra + count + 1]
            at += extra + count + 1
            continue
        if kind == 1:
            back, at, count = (tag >> 5) << 8 | data[at], at + 1, (count & 7) + 4
        else:
            width = 2 if kind == 2 else 4
            back, at, count = int.from_bytes(data[at: at + width], "little"), at + width, count + 1
        if not 0 < back <= len(found):
            raise ValueError("a copy begins before the data")
        for _ in range(count):  # it may reach into itself
            found.append(found[-back])
    if len(found) != length:
        raise ValueError(f"it unpacks to {len(found)} of {length} bytes")
    return bytes(found)


# protobufs


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number, behind it)"""
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number has too many bytes")


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    """{number of the field: its values}"""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            value, at = data[at: at + length], at + length
        else:
            width = _WIDTHS[kind]
            value, at = int.from_bytes(data[at: at + width], "little"), at + width
        found.setdefault(tag >> 3, []).append(value)
    return found


def _number(entry: dict[int, list[int | bytes]], field: int) -> int:
    value = entry.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _shape(entry: dict[int, list[int | bytes]]) -> Shape:
    shape = [d for part in entry.get(2, []) if isinstance(part, bytes) for d in _fields(part).get(2, [])]
    return tuple(_number(_fields(d), 1) for d in shape if isinstance(d, bytes))


def _header(data: bytes) -> int:
    """The number of files with data."""
    header = _fields(data)
    if _number(header, 2):
        raise ValueError("its numbers are big-endian")
    return _number(header, 1)
