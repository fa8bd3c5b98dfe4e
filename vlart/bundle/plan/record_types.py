"""Which record of the layout is which object of a plan, and where a plan keeps it.

`binary.py` and `text.py` take the rest from the kinds of the fields.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping

from vlart.bundle.format import layout
from vlart.bundle.format.record import Field, Owner, Record
from vlart.bundle.plan import action, guard
from vlart.bundle.plan.plan import (
    Backbone,
    Binding,
    Bucket,
    Build,
    BuildBoard,
    Carried,
    Carry,
    Concurrency,
    Delay,
    File,
    History,
    Initializer,
    Instruction,
    Lane,
    LoopEnd,
    Plan,
    Precision,
    Sampling,
    SourceInput,
    Stage,
    Stored,
    TextInput,
    Value,
    Weight,
)

# {section: class of its records, or the class per member of Record.by}
CLASSES: dict[str, type | Mapping[str, type]] = {
    "policy": Plan, "files": File, "values": Value, "sources": SourceInput, "weights": Weight, "stages": Stage,
    "bindings": Binding, "initializers": Initializer, "carries": Carry, "samplings": Sampling, "precisions": Precision,
    "loop_ends": LoopEnd,
    "builds": Build, "board": BuildBoard, "concurrency": Concurrency,
    "delays": Delay, "histories": History, "lanes": Lane, "chunks": Backbone, "carried": Carried,
    "buckets": Bucket,
    "texts": TextInput, "stored": Stored, "instructions": Instruction, "guards": guard.Guard,
    "token_ranges": guard.TokenRange,
    "decodes": {"lookup": action.Lookup, "pieces": action.Pieces, "basis": action.Basis, "affine": action.Affine,
                "delta": action.Delta},
    "rate_limits": action.RateLimit,
    "consumption": {"queue": action.Queue, "ensemble": action.Ensemble, "realtime": action.Realtime},
}
# {section: attribute of the plan}, in the order in which they are written: it decides where strings and numbers lie.
TABLES = {"files": "files", "values": "values", "sources": "sources", "weights": "weights", "stages": "stages",
          "board": "board", "decodes": "action.decode", "consumption": "action.consume", "delays": "delays",
          "histories": "histories", "texts": "texts", "lanes": "lanes", "instructions": "instructions",
          "guards": "guards", "chunks": "backbones", "rate_limits": "action.rate_limit",
          "token_ranges": "token_ranges", "concurrency": "concurrency", "carried": "carried", "buckets": "buckets"}
ONE = ("board", "concurrency", "consumption", "rate_limits")  # tables of at most one record


def record_of(section: str) -> Record:
    record = layout.SECTIONS[layout.SECTION_ID[section]][1]
    assert record is not None
    return record


def owned(section: str) -> list[tuple[str, Field]]:
    """(section, field) of the records that belong to one of this section."""
    return [(name, f) for name in CLASSES for f in record_of(name).fields
            if isinstance(f.kind, Owner) and f.kind.of == section]


def member_of(section: str, item: object) -> str:
    """The member of Record.by that an object is; "" where there is none."""
    record, classes = record_of(section), CLASSES[section]
    if not isinstance(classes, type):
        return next(m for m, cls in classes.items() if cls is type(item))
    return attribute(item, record.keyed[record.by].attribute) if record.by else ""


def class_of(section: str, member: str) -> type:
    classes = CLASSES[section]
    return classes if isinstance(classes, type) else classes[member]


def attribute(item: object, path: str) -> object:
    """None where what has the attribute is None."""
    for name in path.split("."):
        item = None if item is None else getattr(item, name)
    return item


def items_at(plan: Plan, section: str) -> tuple:
    """What a plan has of a section; a queue is what a plan without consumption has."""
    found = attribute(plan, TABLES[section])
    if section in ("guards", "token_ranges"):  # in the order of sources
        order = [s.value for s in plan.sources]
        return tuple(sorted(found, key=lambda g: order.index(g.source)))
    return found if isinstance(found, tuple) else () if found is None or isinstance(found, action.Queue) else (found,)


def make(cls: type, values: Mapping[str, object]) -> object:
    """An object from {attribute: value}. What it computes itself is left out; dots lead into objects that it has."""
    own, nested = {}, {}
    types_of = _fields(cls)
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        elif head in types_of:
            own[head] = tuple(value) if isinstance(value, list) else value
    return cls(**own, **{head: make(types_of[head], inner) for head, inner in nested.items()})


@functools.cache
def _fields(cls: type) -> dict[str, type]:
    """{attribute that the constructor takes: its type; of X | None, X}"""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)
    return {n: typing.get_args(hints[n])[0] if isinstance(hints[n], types.UnionType) else hints[n] for n in names}

