"""How a record is written as text: words with fields of the record in braces.

    {name}   a field as its kind is written: "quoted" strings, %value, @weight, members of enumerations by name; of a
             span its items behind each other with commas, or none
    {*name}  every item of a span, each behind a blank
    {#}      the record's number in its section
    {format} major.minor of the file

A name may also be that of a part of a span (Record.parts).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlart.bundle.format.record import Field, Part, Record, Span

_PLACE = re.compile(r"\{(\*?)([#\w]+)\}")


@dataclass(frozen=True)
class Place:
    """What stands in braces. field: None of {#} and {format}. part: i of n parts of a span."""

    name: str
    field: Field | None = None
    each: bool = False
    part: Part | None = None
    i: int = 0
    n: int = 1

    @property
    def attribute(self) -> str:
        return self.part.name if self.part else self.field.attribute if self.field else ""

    @property
    def is_list(self) -> bool:
        """Items with commas between them."""
        spans = self.field is not None and isinstance(self.field.kind, Span)
        return spans and not self.each and not (self.part and self.part.one)


def pieces(record: Record, text: str, member: str = "") -> Iterator[str | Place]:
    """Words and places of a text, in turn. member: of the enumeration in record.by."""
    parts = {part.name: (key, part, i, len(row))
             for key, row in record.parts.get(member, {}).items() for i, part in enumerate(row)}
    end = 0
    for found in _PLACE.finditer(text):
        if found.start() > end:
            yield text[end: found.start()]
        end, name = found.end(), found[2]
        if name in parts:
            key, part, i, n = parts[name]
            yield Place(name, record.keyed[key], False, part, i, n)
        elif name in ("#", "format"):
            yield Place(name)
        else:
            yield Place(name, record.keyed[name], found[1] == "*")
    if end < len(text):
        yield text[end:]
