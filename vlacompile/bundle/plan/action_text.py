"""Decode steps and consumption <-> text: words and key=value after "  decode" and "  consume"."""

from __future__ import annotations

import struct

from vlacompile import vocabulary
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
from vlacompile.errors import BundleError


def _list(items) -> str:
    return ",".join("none" if i is None else f"{i:.9g}" if isinstance(i, float) else str(i) for i in items)


def _value(i: int | None) -> str:
    return "none" if i is None else f"%{i}"


def action_lines(decode: tuple[DecodeStep, ...], consume: Consumption) -> list[str]:
    """The lines below "action"; none for a plain queue."""
    lines = [f"  decode {_decode_text(step)}" for step in decode]
    match consume:
        case Ensemble(decay):
            lines.append(f"  consume ensemble decay={decay:.9g}")
        case Realtime():
            c = consume
            lines.append(f"  consume realtime delay={c.delay} schedule={c.schedule} horizon={c.horizon} "
                         f"previous={_value(c.previous)} weights={_value(c.weights)} chunk={_value(c.chunk)}")
    return lines


def _decode_text(step: DecodeStep) -> str:
    match step:
        case Lookup():
            return (f"lookup @{step.table} direction={step.direction} outside={step.outside} "
                    f"first={_list(step.first)} rows={_list(step.rows)}")
        case Pieces():
            return (f"pieces @{step.table} direction={step.direction} outside={step.outside} first={step.first} "
                    f"symbols={step.symbols} offset={step.offset} stop={_list([step.stop])} length={step.length}")
        case Basis(table):
            return f"basis @{table}"
        case Affine(scale, offset):
            return f"affine scale={_list(scale)} offset={_list(offset)}"
        case Delta(value, element):
            return f"delta %{value} element={_list(element)}"


def _integer(text: str) -> int | None:
    return None if text == "none" else int(text)


def _reference(text: str) -> int | None:
    return None if text == "none" else int(text.removeprefix("%").removeprefix("@"))


def _integers(text: str) -> tuple:
    return tuple(_integer(t) for t in text.split(","))


def _floats(text: str) -> tuple[float, ...]:
    return tuple(struct.unpack("<f", struct.pack("<f", float(t)))[0] for t in text.split(","))


def _one_of(table: dict[str, int]):
    def read(text: str) -> str:
        if text not in table:
            raise ValueError(f"{text} is none of {', '.join(table)}")
        return text
    return read


_STEPS = {
    "lookup": (Lookup, {"direction": int, "outside": _one_of(vocabulary.OUTSIDES), "first": _integers, "rows": _integers}),
    "pieces": (Pieces, {"direction": int, "outside": _one_of(vocabulary.OUTSIDES), "first": int,
                        "symbols": _one_of(vocabulary.SYMBOLS), "offset": int, "stop": _integer,
                        "length": _one_of(vocabulary.LENGTHS)}),
    "basis": (Basis, {}),
    "affine": (Affine, {"scale": _floats, "offset": _floats}),
    "delta": (Delta, {"element": _integers}),
}
_CONSUMPTIONS = {
    "ensemble": (Ensemble, {"decay": lambda text: _floats(text)[0]}),
    "realtime": (Realtime, {"delay": int, "schedule": _one_of(vocabulary.SCHEDULES), "horizon": int,
                            "previous": _reference, "weights": _reference, "chunk": _reference}),
}
_REFERENCES = {"lookup": "@", "pieces": "@", "basis": "@", "delta": "%"}


def _read(table: dict, text: str, number: int):
    kind, *words = text.split()
    try:
        cls, readers = table[kind]
        sign = _REFERENCES.get(kind, "")
        first = ()
        if sign:
            if not words or not words[0].startswith(sign):
                raise ValueError(f"{kind} needs a {sign} first")
            first = (int(words.pop(0)[1:]),)
        pairs = dict(w.split("=", 1) for w in words)
        if list(pairs) != list(readers):
            raise ValueError(f"{kind} has {', '.join(readers)}")
        return cls(*first, *(readers[k](v) for k, v in pairs.items()))
    except (KeyError, ValueError) as error:
        raise BundleError("not a line of a plan", where=f"line {number}: {text[:60]}", why=str(error),
                          fix="print the plan anew with `vlacompile inspect --plan`") from error


def parse_decode_step(text: str, number: int) -> DecodeStep:
    """What follows "  decode". Raises BundleError with the line's number."""
    return _read(_STEPS, text, number)


def parse_consumption(text: str, number: int) -> Consumption:
    """What follows "  consume". Raises BundleError with the line's number."""
    return Queue() if text == "queue" else _read(_CONSUMPTIONS, text, number)
