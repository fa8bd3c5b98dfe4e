"""What a record of a binary file is: named fields, little-endian, without padding, each of a kind.

From the kinds follow what a field holds in Python, its text, what a reader checks of it, and its C. Knows nothing of
what is recorded; see layout.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

# The struct code of each field type. Everything is little-endian.
CODES = {"u32": "I", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
C_TYPES = {"u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t", "f32": "float", "f64": "double"}
ABSENT = 0xFFFFFFFF  # an index of nothing: VLART_NONE


@dataclass(frozen=True)
class Kind:
    """What a field holds. `blank`: of a record that does not use it."""

    words = ""  # for a comment
    blank = 0


@dataclass(frozen=True)
class Number(Kind):
    """As it is. optional: of i64; a negative number is none."""

    optional: bool = False


@dataclass(frozen=True)
class Float(Kind):
    """f32 or f64."""

    blank = 0.0


@dataclass(frozen=True)
class Checksum(Kind):
    """A number that is written in hexadecimal."""


@dataclass(frozen=True)
class Flag(Kind):
    """0 or 1."""

    words = "0 or 1"


@dataclass(frozen=True)
class String(Kind):
    """A byte offset into the strings section."""

    optional: bool = False

    @property
    def words(self) -> str:
        return "string" + ", or NONE" * self.optional

    @property
    def blank(self) -> int:
        return ABSENT if self.optional else 0


@dataclass(frozen=True)
class Index(Kind):
    """A record of the section `of`. within: the position is counted from where this span of its owner begins, in Python
    and in text."""

    of: str
    optional: bool = False
    within: str = ""

    @property
    def words(self) -> str:
        return f"index into {self.of}" + ", or NONE" * self.optional

    @property
    def blank(self) -> int:
        return ABSENT if self.optional else 0


@dataclass(frozen=True)
class Owner(Index):
    """The record that this one belongs to. many: it may have several."""

    many: bool = False


@dataclass(frozen=True)
class Enum(Kind):
    """A member of layout.ENUMS[of]. later: an unknown number is no damage but of a later version; whoever uses the
    field decides."""

    of: str
    optional: bool = False
    later: bool = False

    @property
    def words(self) -> str:
        return self.of + ", or NONE" * self.optional

    @property
    def blank(self) -> int:
        return ABSENT if self.optional else 0


@dataclass(frozen=True)
class Bits(Kind):
    """A sum of members of layout.ENUMS[of]."""

    of: str

    @property
    def words(self) -> str:
        return f"bits of {self.of}"


@dataclass(frozen=True)
class Rank(Kind):
    """How many dimensions the field `dims` has."""

    words = "0..MAX_RANK"


@dataclass(frozen=True)
class Dims(Kind):
    """u64[MAX_RANK]: the field `rank` says how many are in use, the rest is 1."""

    words = "dims[0..rank); the rest is 1"


@dataclass(frozen=True)
class Span(Kind):
    """The first of X_count records in the section `of`; the next field is the count. items: the section that the
    numbers of a span of indices are records of."""

    of: str
    items: str = ""

    @property
    def words(self) -> str:
        return f"first in {self.of}" + f": records of {self.items}" * bool(self.items)


@dataclass(frozen=True)
class Count(Kind):
    """Belongs to the span before it."""


@dataclass(frozen=True)
class Reserved(Kind):
    """Zero."""

    words = "zero"


@dataclass(frozen=True)
class Field:
    """attribute: what the object in Python calls it; dots lead into objects that it has."""

    name: str
    type: str  # u32, u64, i64, f32, f64, or one of them with [n]
    kind: Kind
    doc: str = ""
    attribute: str = ""

    @property
    def base(self) -> str:
        return self.type.split("[")[0]

    @property
    def count(self) -> int:
        return int(self.type.split("[")[1][:-1]) if "[" in self.type else 1

    @property
    def key(self) -> str:
        """Its name in texts and tables; a span's without "_begin"."""
        return self.name.removesuffix("_begin") if isinstance(self.kind, Span) else self.name

    @property
    def comment(self) -> str:
        return "; ".join(filter(None, (self.kind.words, self.doc)))


@dataclass(frozen=True)
class Part:
    """One of the equally long parts of a span. one: it is a number, no tuple."""

    name: str
    one: bool = False


@dataclass(frozen=True)
class Record:
    """text: how a record is written: its fields in braces (see template.py); or one text per member of the enumeration
    in the field `by`, "" where it is not written. parts: {member: {span: its parts}}."""

    name: str
    doc: str
    fields: tuple[Field, ...]
    text: str | Mapping[str, str] = ""
    by: str = ""
    parts: Mapping[str, Mapping[str, tuple[Part, ...]]] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """The `struct` format: little-endian without padding (a test checks that C agrees)."""
        return "<" + "".join(f"{f.count}{CODES[f.base]}" for f in self.fields)

    @property
    def size(self) -> int:
        return struct.calcsize(self.format)

    @cached_property
    def keyed(self) -> dict[str, Field]:
        """The fields that hold something, by Field.key."""
        return {f.key: f for f in self.fields if not isinstance(f.kind, (Count, Reserved))}

    def pack(self, **values) -> bytes:
        """What is not given is blank."""
        flat: list = []
        for f in self.fields:
            value = values.pop(f.name, (f.kind.blank,) * f.count if f.count > 1 else f.kind.blank)
            flat.extend(value) if f.count > 1 else flat.append(value)
        assert not values, f"{self.name} has no fields {sorted(values)}"
        return struct.pack(self.format, *flat)

    def unpack(self, data: bytes, offset: int = 0) -> dict:
        flat = list(struct.unpack_from(self.format, data, offset))
        out = {}
        for f in self.fields:
            out[f.name] = tuple(flat[: f.count]) if f.count > 1 else flat[0]
            del flat[: f.count]
        return out


def record(name: str, doc: str, *fields: Field | tuple[Field, ...], text: str | Mapping[str, str] = "", by: str = "",
           parts: Mapping[str, Mapping[str, tuple[Part, ...]]] | None = None) -> Record:
    flat = tuple(f for row in fields for f in (row if isinstance(row, tuple) else (row,)))
    return Record(name, doc, flat, text, by, parts or {})


# ---- rows of a record ------------------------------------------------------------------------------------------------


def _row(name: str, kind: Kind, doc: str, attribute: str, type: str = "u32") -> Field:
    return Field(name, type, kind, doc, attribute or name)


def number(name: str, type: str, doc: str, *, optional: bool = False, attribute: str = "") -> Field:
    return _row(name, Number(optional), doc, attribute, type)


def real(name: str, type: str, doc: str, *, attribute: str = "") -> Field:
    return _row(name, Float(), doc, attribute, type)


def checksum(name: str, doc: str) -> Field:
    return _row(name, Checksum(), doc, "")


def flag(name: str, doc: str) -> Field:
    return _row(name, Flag(), doc, "")


def string(name: str, doc: str = "", *, optional: bool = False, attribute: str = "") -> Field:
    return _row(name, String(optional), doc, attribute)


def index(name: str, of: str, doc: str = "", *, optional: bool = False, within: str = "", attribute: str = "") -> Field:
    return _row(name, Index(of, optional, within), doc, attribute)


def owner(name: str, of: str, attribute: str, doc: str = "", *, many: bool = False) -> Field:
    """attribute: where the owner keeps what belongs to it."""
    return _row(name, Owner(of, many=many), doc, attribute)


def enum(name: str, of: str, doc: str = "", *, optional: bool = False, later: bool = False,
         attribute: str = "") -> Field:
    return _row(name, Enum(of, optional, later), doc, attribute)


def bits(name: str, of: str, doc: str = "") -> Field:
    return _row(name, Bits(of), doc, "")


def rank() -> Field:
    return _row("rank", Rank(), "", "type.dims")


def dims() -> Field:
    return _row("dims", Dims(), "", "type.dims", "u64[8]")


def reserved(name: str = "reserved", type: str = "u32") -> Field:
    return _row(name, Reserved(), "", "", type)


def span(name: str, of: str, doc: str = "", *, items: str = "", attribute: str = "") -> tuple[Field, Field]:
    return (_row(f"{name}_begin", Span(of, items), doc, attribute or name),
            _row(f"{name}_count", Count(), f"number of {name} records", ""))
