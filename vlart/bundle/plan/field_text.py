"""What a field holds <-> the word for it in plan.txt, by its kind."""

from __future__ import annotations

import re

from vlart.bundle.format import layout
from vlart.bundle.format.record import Bits, Checksum, Dims, Enum, Flag, Float, Index, Kind, Number, Span, String
from vlart.bundle.plan.plan import as_f32

NO_ITEMS = "none"
_SIGNS = {"values": "%", "sources": "%", "weights": "@"}  # of the number of a record; a source by that of its value


def item_kind(kind: Kind) -> Kind | None:
    """Of one item, where the kind is a span; None: a record. Else the kind itself."""
    if not isinstance(kind, Span):
        return kind
    if kind.of == "floats":
        return Float()
    if kind.of != "indices":
        return None
    return Index(kind.items) if kind.items else Index("indices", optional=True)


def word(kind: Kind, value: object) -> str:
    if value is None:
        return "none"
    match kind:
        case String():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Index():
            return f"{_SIGNS.get(kind.of, '')}{value}"
        case Bits():
            return ",".join(value) or "none"
        case Flag():
            return str(int(value))
        case Checksum():
            return f"{value:08x}"
        case Float():
            return f"{value:.9g}"
        case Dims():
            return ",".join(map(str, value))
    return str(value)


def pattern(kind: Kind) -> str:
    """A regular expression with one group, which `parsed` reads."""
    match kind:
        case String():
            return r'"((?:[^"\\]|\\.)*)"'
        case Index():
            number = f"{_SIGNS.get(kind.of, '')}\\d+"
            return f"({number}|none)" if kind.optional else f"({number})"
        case Enum():
            return r"(\w+)"
        case Flag():
            return "([01])"
        case Checksum():
            return "([0-9a-f]{8})"
        case Dims():
            return r"((?:\d+(?:,\d+)*)?)"
        case Number(optional=True):
            return r"(-?\d+|none)"
        case Number():
            return r"(-?\d+)"
    return r"(\S+)"


def parsed(kind: Kind, text: str) -> object:
    """Raises ValueError that says what it is not."""
    match kind:
        case String():
            return re.sub(r"\\(.)", r"\1", text)
        case Index():
            return None if text == "none" else int(text.removeprefix(_SIGNS.get(kind.of, "")))
        case Enum():
            return _member(kind.of, text)
        case Bits():
            return () if text == "none" else tuple(_member(kind.of, t) for t in text.split(","))
        case Flag():
            return text == "1"
        case Checksum():
            return int(text, 16)
        case Float():
            return as_f32((float(text),))[0]
        case Dims():
            return tuple(int(d) for d in text.split(",")) if text else ()
    return None if text == "none" else int(text)


def _member(enum: str, text: str) -> str:
    if text not in layout.ENUMS[enum]:
        raise ValueError(f"{text} is none of {', '.join(layout.ENUMS[enum])}")
    return text
