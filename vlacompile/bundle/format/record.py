"""What a record of a binary file is: named fields of fixed types, little-endian, without padding.

Knows nothing of what is recorded; see layout.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# The struct code of each field type. Everything is little-endian.
CODES = {"u32": "I", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
C_TYPES = {"u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t", "f32": "float", "f64": "double"}


@dataclass(frozen=True)
class Field:
    name: str
    type: str  # u32, u64, i64, f32, f64, or one of them with [n]
    doc: str

    @property
    def base(self) -> str:
        return self.type.split("[")[0]

    @property
    def count(self) -> int:
        return int(self.type.split("[")[1][:-1]) if "[" in self.type else 1


@dataclass(frozen=True)
class Record:
    name: str
    doc: str
    fields: tuple[Field, ...]

    @property
    def format(self) -> str:
        """The `struct` format: little-endian without padding (a test checks that C agrees)."""
        return "<" + "".join(f"{f.count}{CODES[f.base]}" for f in self.fields)

    @property
    def size(self) -> int:
        return struct.calcsize(self.format)

    def pack(self, **values) -> bytes:
        flat: list = []
        for field in self.fields:
            value = values.pop(field.name)
            flat.extend(value) if field.count > 1 else flat.append(value)
        assert not values, f"{self.name} has no fields {sorted(values)}"
        return struct.pack(self.format, *flat)

    def unpack(self, data: bytes, offset: int = 0) -> dict:
        flat = list(struct.unpack_from(self.format, data, offset))
        out = {}
        for field in self.fields:
            out[field.name] = tuple(flat[: field.count]) if field.count > 1 else flat[0]
            del flat[: field.count]
        return out


def record(name: str, doc: str, *rows: tuple[str, str, str]) -> Record:
    return Record(name, doc, tuple(Field(n, t, d) for n, t, d in rows))


def span(what: str, into: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    return (
        (f"{what}_begin", "u32", f"first {what} record in {into}"),
        (f"{what}_count", "u32", f"number of {what} records"),
    )


def c_type(field: Field) -> str:
    return C_TYPES[field.base]
