"""Every kind of record: plans drawn from the kinds of the fields are read back from plan.bin and from plan.txt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlart.bundle.format import layout
from vlart.bundle.format.record import (
    Bits,
    Dims,
    Enum,
    Field,
    Flag,
    Float,
    Index,
    Number,
    Owner,
    Rank,
    Record,
    Reserved,
    Span,
    String,
)
from vlart.bundle.format.template import Place, pieces
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import Plan
from vlart.bundle.plan.record_types import CLASSES, ONE, TABLES, class_of, make, owned, record_of
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import BundleError

COUNT = 3  # values, weights, files and sources of a drawn plan
FLOATS = st.floats(-1e6, 1e6, width=32).map(lambda x: float(np.float32(x)))
LIMITS = {"u32": (0, 2**32 - 2), "u64": (0, 2**63), "i64": (-2**40, 2**40)}


def numbers(draw, f: Field):
    low, high = LIMITS[f.base]
    optional = isinstance(f.kind, Number) and f.kind.optional
    return draw(st.none() | st.integers(0, high) if optional else st.integers(low, high))


def index(draw, kind: Index):
    return draw(st.none() | st.integers(0, COUNT - 1) if kind.optional else st.integers(0, COUNT - 1))


def scalar(draw, f: Field):
    """Something that a field of its kind can hold."""
    match f.kind:
        case String():
            return draw(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12))
        case Index():
            return index(draw, f.kind)
        case Enum():
            return draw(st.sampled_from(sorted(layout.ENUMS[f.kind.of])))
        case Bits():
            taken = draw(st.sets(st.sampled_from(sorted(layout.ENUMS[f.kind.of]))))
            return tuple(m for m in layout.ENUMS[f.kind.of] if m in taken)
        case Flag():
            return draw(st.booleans())
        case Float():
            return draw(FLOATS)
        case Dims():
            return draw(st.lists(st.integers(0, 1000), max_size=layout.MAX_RANK // 2).map(tuple))
    return numbers(draw, f)


def items(draw, f: Field, least: int = 0):
    """Of a span."""
    count = draw(st.integers(least, COUNT))
    if f.kind.of == "floats":
        return tuple(draw(FLOATS) for _ in range(count))
    if f.kind.of == "indices":
        return tuple(index(draw, Index(f.kind.items)) for _ in range(count))
    return tuple(drawn(draw, f.kind.of) for _ in range(count))


def counted_from(record: Record) -> set[str]:
    """The spans that others of its spans hold positions in."""
    within = [record_of(f.kind.of) for f in record.keyed.values() if isinstance(f.kind, Span) and f.kind.of in CLASSES]
    return {f.kind.within for r in within for f in r.keyed.values() if isinstance(f.kind, Index)} - {""}


def drawn(draw, section: str, **given):
    """An object of a section. given: attributes that are not drawn."""
    record = record_of(section)
    member = draw(st.sampled_from(sorted(record_of(section).text))) if record.by else ""
    values: dict[str, object] = {record.keyed[record.by].attribute: member} if record.by else {}
    text = record.text[member] if record.by else record.text
    named = {p.field.key for p in pieces(record, text, member) if isinstance(p, Place) and p.field}
    parts = record.parts.get(member, {})
    for f in record.keyed.values():
        if f.key in parts:
            size = draw(st.integers(1, COUNT))
            for p in parts[f.key]:
                of = FLOATS if f.kind.of == "floats" else st.integers(0, 2**31)
                values[p.name] = draw(of) if p.one else tuple(draw(of) for _ in range(size))
        elif isinstance(f.kind, Span):
            values[f.attribute] = items(draw, f, COUNT if f.key in counted_from(record) else 0)
        elif not isinstance(f.kind, (Owner, Rank)) and (not record.by or f.key in named):
            values[f.attribute] = scalar(draw, f)
    for name, f in owned(section):
        if f.kind.many:
            values[f.attribute] = tuple(drawn(draw, name) for _ in range(draw(st.integers(0, 2))))
        elif draw(st.booleans()):
            values[f.attribute] = drawn(draw, name)
    return make(class_of(section, member), values | given)


@st.composite
def plans(draw) -> Plan:
    values = {f.attribute: scalar(draw, f) for f in record_of("policy").keyed.values() if not isinstance(f.kind, Span)}
    if values["action.value"] is not None:
        values |= {f.attribute: items(draw, f) for f in record_of("policy").keyed.values() if isinstance(f.kind, Span)}
    else:
        values = {"action": None} | {k: v for k, v in values.items() if not k.startswith("action.")}
    for section, where in TABLES.items():
        if where.startswith("action.") and "action" in values:
            continue
        if section in ONE:
            values |= {where: drawn(draw, section)} if draw(st.booleans()) else {}
        elif section in ("sources", "guards", "token_ranges"):  # of each value one
            key = "value" if section == "sources" else "source"
            values[where] = tuple(drawn(draw, section, **{key: i}) for i in range(COUNT))
        else:
            least = COUNT if section in ("values", "weights", "files") else 0
            values[where] = tuple(drawn(draw, section) for _ in range(draw(st.integers(least, COUNT))))
    return make(Plan, values)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plans())
def test_plans_of_any_records_are_read_back(plan):
    assert parse_plan(plan_text(plan)) == plan
    back = read_plan(Path("plan.bin"), plan_bytes(plan))  # libvlart would refuse it: the records do not fit
    assert back == plan and plan_bytes(back) == plan_bytes(plan)


ROWS = [(section, member) for section, classes in CLASSES.items()
        for member in (classes if isinstance(classes, Mapping) else ("",))]


@pytest.mark.parametrize("section, member", ROWS)
def test_a_class_and_its_record_have_the_same_fields(section, member):
    """A field that only one of them has would be lost on the way."""
    record, cls = record_of(section), class_of(section, member)
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set(cls._fields)
    parts = record.parts.get(member, {})
    kept = {f.attribute.split(".")[0] for f in record.keyed.values()
            if not isinstance(f.kind, Owner) and f.key not in parts}
    kept |= {p.name for row in parts.values() for p in row} | {f.attribute for _, f in owned(section)}
    if section == "policy":
        kept |= {where.split(".")[0] for where in TABLES.values()}
    assert fields <= kept, f"{cls.__name__} has what no record holds: {sorted(fields - kept)}"
    if not isinstance(CLASSES[section], Mapping):
        computed = {name for name in kept - fields if isinstance(getattr(cls, name, None), property)}
        assert kept - fields == computed, f"{cls.__name__} lacks {sorted(kept - fields - computed)} of its record"


@pytest.mark.parametrize("section", [s for s, of in CLASSES.items() if s != "policy" and isinstance(of, type)])
def test_a_line_says_all_that_a_record_holds(section):
    record = record_of(section)
    texts = record.text.values() if record.by else (record.text,)
    named = {p.field.key for text in texts for p in pieces(record, text) if isinstance(p, Place) and p.field}
    lines = {"stages": {"dep", "input", "output", "initializer", "carry"}}  # which have lines of their own
    silent = {f.key for f in record.keyed.values() if isinstance(f.kind, (Owner, Rank, Reserved))}
    computed = {"bytes"} if section == "values" else set()  # of the type
    assert set(record.keyed) - named == (silent | lines.get(section, set()) | computed | ({record.by} - {""}))


LINES = ["action %1 chunk=1 execute=1 dim=1 deadline_us=x", "  depends %0", '  in "a" %0 whole',
         "source %0 sometimes clock=0", "source %0 task clock=fast", 'board "a" sm=87']


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(BundleError, match="not a line of a plan") as caught:
        parse_plan(f'plan "a" format 1.0 target "host" recipe "r"\narena 0\n{line}\n')
    assert "line 3" in caught.value.where and caught.value.why


def test_a_text_without_its_first_lines_is_refused():
    with pytest.raises(BundleError, match="not the text of a plan") as caught:
        parse_plan('plan "a" format 1.0 target "host" recipe "r"\n')
    assert "arena" in caught.value.why
