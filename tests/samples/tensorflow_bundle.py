"""A checkpoint as TensorFlow writes it, its index plain or packed as Google's own tools do, for tests without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from vlacompile.frontends.tensorflow_files import FOOTER, HANDLES, MAGIC, TYPES, VALUE, checksum

_NUMBERS = {kind: number for number, kind in TYPES.items()}


def written(prefix: Path, tensors: Mapping[str, torch.Tensor], packed: bool = False) -> Path:
    """The index. tensors: their names are joined by dots, as the reader gives them."""
    data, entries = b"", {b"": b"\x08\x01"}  # one file of data
    for name, tensor in sorted(tensors.items()):
        elements = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        shape = b"".join(_field(2, b"\x08" + _varint(n)) for n in tensor.shape)
        entries[(name.replace(".", "/") + VALUE).encode()] = (
            b"\x08" + _varint(_NUMBERS[tensor.dtype]) + _field(2, shape) + b"\x20" + _varint(len(data)) + b"\x28"
            + _varint(len(elements)) + b"\x35\0\0\0\0")
        data += elements
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data or b"\0")
    index = _put(b"", _block(entries), packed)
    inner = _put(index, _block({max(entries): _handle(b"", index)}), packed)
    footer = b"\0\0" + _handle(index, inner)
    out = prefix.with_name(f"{prefix.name}.index")
    out.write_bytes(inner + footer.ljust(HANDLES, b"\0") + MAGIC.to_bytes(FOOTER - HANDLES, "little"))
    return out


def snappy(data: bytes) -> bytes:
    """Copies of what came before wherever four bytes repeat, also of what they write themselves."""
    found, places, at, begun = _varint(len(data)), {}, 0, 0
    while at < len(data):
        back = at - places.get(data[at: at + 4], at)
        places[data[at: at + 4]] = at
        count = 0
        while back and count < 64 and at + count < len(data) and data[at + count] == data[at + count - back]:
            count += 1
        if count < 4:
            at += 1
            continue
        found += _literal(data[begun: at])
        if count < 12 and back < 2048:
            found += bytes([1 | count - 4 << 2 | back >> 8 << 5, back & 255])
        else:
            found += bytes([2 | count - 1 << 2]) + back.to_bytes(2, "little")
        at = begun = at + count
    return found + _literal(data[begun:])


def _literal(data: bytes) -> bytes:
    if not data:
        return b""
    count = len(data) - 1
    return (bytes([count << 2]) if count < 60 else bytes([61 << 2]) + count.to_bytes(2, "little")) + data


def _block(entries: Mapping[bytes, bytes]) -> bytes:
    found, last = b"", b""
    for key, value in sorted(entries.items()):
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        found += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    return found + b"\0\0\0\0\x01\0\0\0"


def _put(before: bytes, block: bytes, packed: bool) -> bytes:
    stored = (snappy(block) if packed else block) + bytes([packed])
    return before + stored + checksum(stored)


def _handle(before: bytes, after: bytes) -> bytes:
    return _varint(len(before)) + _varint(len(after) - len(before) - 5)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])
