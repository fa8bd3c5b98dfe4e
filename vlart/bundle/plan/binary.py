"""Plan <-> plan.bin: what the fields of the records hold follows from their kinds (`bundle/format/record.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from vlart.bundle.format import layout
from vlart.bundle.format.record import (
    Bits,
    Dims,
    Enum,
    Field,
    Flag,
    Index,
    Kind,
    Number,
    Owner,
    Rank,
    Span,
    String,
)
from vlart.bundle.format.sections import SectionReader, SectionWriter
from vlart.bundle.format.template import Place, pieces
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.record_types import (
    CLASSES,
    ONE,
    TABLES,
    attribute,
    class_of,
    items_at,
    make,
    member_of,
    owned,
    record_of,
)

_NONE = layout.NONE


def plan_bytes(plan: Plan) -> bytes:
    writer = _Writer(plan)
    writer.add("policy", plan)
    for section in TABLES:
        for item in items_at(plan, section):
            writer.add(section, item)
    return writer.sections.to_bytes()


def read_plan(path: Path, content: bytes | None = None) -> Plan:
    """Read plan.bin. content: of the file, as libvlart checked it. Raises BundleError when libvlart refuses it."""
    reader = _Reader(SectionReader(path, layout.PLAN_MAGIC, content))
    values = reader.values("policy", reader.rows["policy"][0])
    for section, where in TABLES.items():
        found = [reader.item(section, row, i) for i, row in enumerate(reader.rows[section])]
        if found or section not in ONE:
            values[where] = found[0] if section in ONE else tuple(found)
    if values["action.value"] is None:
        values = {k: v for k, v in values.items() if not k.startswith("action.")} | {"action": None}
    return make(Plan, values)


class _Writer:
    """Appends records. What a record's spans hold is written before it, and what it owns after it."""

    def __init__(self, plan: Plan):
        self.sections = SectionWriter(layout.PLAN_MAGIC, layout.PLAN_SECTIONS)
        self._sources = {s.value: i for i, s in enumerate(plan.sources)}

    def add(self, section: str, item: object, owner: int = 0, begins: Mapping[str, int] | None = None) -> None:
        """owner: number of the record that it belongs to. begins: of the spans of the one that has it."""
        record, member, row, own = record_of(section), member_of(section, item), {}, {}
        unused = _unused(section, member)
        for f in record.keyed.values():
            if isinstance(f.kind, Span):
                own[f.key], row[f"{f.key}_count"] = self._span(f, _spanned(section, member, f, item, unused), own)
                row[f.name] = own[f.key]
        for f in record.keyed.values():
            if isinstance(f.kind, Owner):
                row[f.name] = owner
            elif not isinstance(f.kind, Span) and f.key not in unused:
                value = member if f.key == record.by else attribute(item, f.attribute)
                row[f.name] = self._number(f.kind, value, begins or {})
        number = self.sections.add(section, **row)
        for name, f in owned(section):
            found = attribute(item, f.attribute)
            for part in found if f.kind.many else () if found is None else (found,):
                self.add(name, part, number)

    def _span(self, f: Field, items: tuple, begins: Mapping[str, int]) -> tuple[int, int]:
        if f.kind.of in CLASSES:
            begin = len(self.sections.records[f.kind.of])
            for item in items:
                self.add(f.kind.of, item, begins=begins)
            return begin, len(items)
        if f.kind.of == "indices":
            items = tuple(self._number(Index(f.kind.items, optional=True), i, {}) for i in items)
        return self.sections.scalars(f.kind.of, items)

    def _number(self, kind: Kind, value: object, begins: Mapping[str, int]) -> object:
        if value is None:
            return (-1 if kind.optional else kind.blank) if isinstance(kind, Number) else _NONE
        match kind:
            case String():
                return self.sections.string(value)
            case Index(of="sources"):
                return self._sources[value]
            case Index():
                return begins.get(kind.within, 0) + value
            case Enum():
                return layout.ENUMS[kind.of][value]
            case Bits():
                return sum(layout.ENUMS[kind.of][bit] for bit in value)
            case Flag():
                return int(value)
            case Rank():
                return len(value)
            case Dims():
                return (*value, *(1,) * (layout.MAX_RANK - len(value)))
        return value


def _spanned(section: str, member: str, f: Field, item: object, unused: frozenset[str]) -> tuple:
    if f.key in unused:
        return ()
    parts = record_of(section).parts.get(member, {}).get(f.key)
    if parts is None:
        return attribute(item, f.attribute) or ()
    found = [attribute(item, p.name) for p in parts]
    return tuple(x for p, values in zip(parts, found, strict=True) for x in ((values,) if p.one else values))


def _unused(section: str, member: str) -> frozenset[str]:
    """Fields of a record that objects of this class have nothing for: those that its text does not name."""
    record = record_of(section)
    if isinstance(CLASSES[section], type):
        return frozenset()
    named = {p.field.key for p in pieces(record, record.text[member], member) if isinstance(p, Place) and p.field}
    return frozenset(record.keyed) - named - {record.by}


class _Reader:
    def __init__(self, sections: SectionReader):
        self._sections = sections
        self._floats, self._indices = sections.scalars("floats"), sections.scalars("indices")
        self.rows = {section: sections.rows(section) for section in CLASSES}

    def item(self, section: str, row: dict, number: int = 0, begins: Mapping[str, int] | None = None) -> object:
        """The object of a record, with what it owns. number: of the record in its section."""
        record, values = record_of(section), self.values(section, row, begins)
        member = values[record.keyed[record.by].attribute] if record.by else ""
        for name, f in owned(section):
            found = self._owned[name].get(number, [])
            if found or f.kind.many:
                values[f.attribute] = tuple(found) if f.kind.many else found[0]
        return make(class_of(section, member), values)

    def values(self, section: str, row: dict, begins: Mapping[str, int] | None = None) -> dict[str, object]:
        """{attribute: value} of a record."""
        record, values, own = record_of(section), {}, {}
        for f in record.keyed.values():
            if isinstance(f.kind, Span):
                own[f.key] = row[f.name]
            elif not isinstance(f.kind, (Owner, Rank)):
                values[f.attribute] = self._value(f, row, begins or {})
        member = values[record.keyed[record.by].attribute] if record.by else ""
        for f in record.keyed.values():
            if isinstance(f.kind, Span):
                items = self._items(f, row, own)
                parts = record.parts.get(member, {}).get(f.key)
                size = len(items) // len(parts) if parts else 0
                values |= {p.name: items[k * size] if p.one else items[k * size: k * size + size]
                           for k, p in enumerate(parts)} if parts else {f.attribute: items}
        return values

    @cached_property
    def _owned(self) -> dict[str, dict[int, list]]:
        """{section: {number of the owner: what it owns}}"""
        found: dict[str, dict[int, list]] = {}
        for section in CLASSES:
            for name, f in owned(section):
                of = found.setdefault(name, {})
                for row in self.rows[name]:
                    of.setdefault(self._index(f.key, f.kind, row[f.name], {}), []).append(self.item(name, row))
        return found

    def _items(self, f: Field, row: dict, begins: Mapping[str, int]) -> tuple:
        of, first, end = f.kind.of, row[f.name], row[f.name] + row[f"{f.key}_count"]
        every = {"floats": self._floats, "indices": self._indices}.get(of) or self.rows.get(of, ())
        if of == "floats":
            return tuple(every[first:end])
        if of == "indices":
            return tuple(self._index(f.key, Index(f.kind.items, optional=True), i, {}) for i in every[first:end])
        return tuple(self.item(of, r, begins=begins) for r in every[first:end])

    def _index(self, name: str, kind: Index, number: int, begins: Mapping[str, int]) -> int | None:
        if kind.optional and number == _NONE:
            return None
        return self.rows["sources"][number]["value"] if kind.of == "sources" else number - begins.get(kind.within, 0)

    def _value(self, f: Field, row: dict, begins: Mapping[str, int]) -> object:
        number, kind = row[f.name], f.kind
        match kind:
            case String():
                return None if kind.optional and number == _NONE else self._sections.string(number)
            case Index():
                return self._index(f.key, kind, number, begins)
            case Enum():
                return self._member(f, number)
            case Bits():
                return tuple(name for name, bit in layout.ENUMS[kind.of].items() if number & bit)
            case Flag():
                return number == 1
            case Dims():
                return tuple(number[: row["rank"]])
            case Number(optional=True):
                return None if number < 0 else number
        return number

    def _member(self, f: Field, number: int) -> str | None:
        if f.kind.optional and number == _NONE:
            return None
        name = next((name for name, known in layout.ENUMS[f.kind.of].items() if known == number), None)
        return name or self._sections.refuse(f"its {f.key} {number} is unknown")
