"""Decode steps and consumption <-> records of `bundle/format/layout.py`."""

from __future__ import annotations

from vlacompile import vocabulary
from vlacompile.bundle.format import layout
from vlacompile.bundle.format.sections import SectionReader, SectionWriter
from vlacompile.bundle.plan.action import (
    Affine,
    Basis,
    Consumption,
    DecodeStep,
    Delta,
    Ensemble,
    Lookup,
    Pieces,
    Queue,
    Realtime,
)

_NONE = layout.NONE


def _some(i: int | None) -> int:
    return _NONE if i is None else i


def _key(table: dict[str, int], number: int) -> str:
    return next(k for k, v in table.items() if v == number)


def _fields(step: DecodeStep) -> tuple[dict, tuple, tuple]:
    """(fields of the record, its floats, its indices)."""
    match step:
        case Lookup():
            return ({"kind": "lookup", "table": step.table, "direction": step.direction,
                     "outside": vocabulary.OUTSIDES[step.outside]}, (), (*step.first, *step.rows))
        case Pieces():
            return ({"kind": "pieces", "table": step.table, "direction": step.direction,
                     "outside": vocabulary.OUTSIDES[step.outside], "symbols": vocabulary.SYMBOLS[step.symbols],
                     "length": vocabulary.LENGTHS[step.length], "offset": step.offset,
                     "stop": -1 if step.stop is None else step.stop}, (), (step.first,))
        case Basis(table):
            return {"kind": "basis", "table": table}, (), ()
        case Affine(scale, offset):
            return {"kind": "affine"}, (*scale, *offset), ()
        case Delta(value, element):
            return {"kind": "delta", "value": value}, (), tuple(_some(e) for e in element)


def add_action(w: SectionWriter, action) -> None:
    """Append the decode steps and, unless it is a plain queue, the consumption of a plan.Action."""
    for step in action.decode:
        fields, floats, indices = _fields(step)
        float_begin, float_count = w.scalars("floats", floats)
        index_begin, index_count = w.scalars("indices", indices)
        row = {"outside": 0, "symbols": 0, "length": 0, "table": _NONE, "value": _NONE, "direction": 0, "offset": 0,
               "stop": 0} | fields
        w.add("decodes", **{**row, "kind": vocabulary.DECODE_KINDS[fields["kind"]]}, float_begin=float_begin,
              float_count=float_count, index_begin=index_begin, index_count=index_count)
    row = {"decay": 0.0, "delay": 0, "schedule": 0, "horizon": 0, "previous": _NONE, "weights": _NONE, "chunk": _NONE}
    match action.consume:
        case Ensemble(decay):
            w.add("consumption", consume=vocabulary.CONSUMES["ensemble"], **{**row, "decay": decay})
        case Realtime():
            c = action.consume
            w.add("consumption", consume=vocabulary.CONSUMES["realtime"], **row | {
                "delay": c.delay, "schedule": vocabulary.SCHEDULES[c.schedule], "horizon": c.horizon,
                "previous": _some(c.previous), "weights": _some(c.weights), "chunk": _some(c.chunk)})


def read_decode(r: SectionReader, dim: int) -> tuple[DecodeStep, ...]:
    floats, indices = r.scalars("floats"), r.scalars("indices")
    return tuple(_read_step(row, dim, floats, indices) for row in r.rows("decodes"))


def _read_step(row: dict, dim: int, floats: tuple, indices: tuple) -> DecodeStep:
    f = floats[row["float_begin"]: row["float_begin"] + row["float_count"]]
    i = indices[row["index_begin"]: row["index_begin"] + row["index_count"]]
    outside = _key(vocabulary.OUTSIDES, row["outside"])
    match _key(vocabulary.DECODE_KINDS, row["kind"]):
        case "lookup":
            return Lookup(row["table"], row["direction"], outside, i[:dim], i[dim:])
        case "pieces":
            return Pieces(row["table"], row["direction"], outside, i[0], _key(vocabulary.SYMBOLS, row["symbols"]),
                          row["offset"], None if row["stop"] < 0 else row["stop"],
                          _key(vocabulary.LENGTHS, row["length"]))
        case "basis":
            return Basis(row["table"])
        case "affine":
            return Affine(f[:dim], f[dim:])
        case _:
            return Delta(row["value"], tuple(None if e == _NONE else e for e in i))


def read_consumption(r: SectionReader) -> Consumption:
    rows = r.rows("consumption")
    if not rows:
        return Queue()
    row = rows[0]
    match _key(vocabulary.CONSUMES, row["consume"]):
        case "ensemble":
            return Ensemble(row["decay"])
        case "realtime":
            some = [None if row[k] == _NONE else row[k] for k in ("previous", "weights", "chunk")]
            return Realtime(row["delay"], _key(vocabulary.SCHEDULES, row["schedule"]), row["horizon"], *some)
        case _:
            return Queue()
