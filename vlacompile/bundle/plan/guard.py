"""What a plan says of the content and the age of its sources <-> text and records of `bundle/format/layout.py`."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from vlacompile import vocabulary
from vlacompile.bundle.format.sections import SectionReader, SectionWriter
from vlacompile.errors import BundleError


@dataclass(frozen=True)
class Guard:
    """source: its value. low, high: none, one number for all elements, or one per element of the last axis; f32.
    outside: a key of vocabulary.GUARD_RULES. not_finite: it may hold NaN and infinity. max_age_us: 0: any age."""

    source: int
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    outside: str = "count"
    not_finite: bool = False
    max_age_us: int = 0


PATTERN = r"guard %(\d+) (\w+) low=(\S+) high=(\S+) not_finite=([01]) max_age_us=(\d+)"


def _numbers(row: tuple[float, ...]) -> str:
    return ",".join(f"{x:.9g}" for x in row) or "none"


def _parsed(text: str) -> tuple[float, ...]:
    return () if text == "none" else tuple(struct.unpack("<f", struct.pack("<f", float(x)))[0] for x in text.split(","))


def guard_line(guard: Guard) -> str:
    return (f"guard %{guard.source} {guard.outside} low={_numbers(guard.low)} high={_numbers(guard.high)} "
            f"not_finite={int(guard.not_finite)} max_age_us={guard.max_age_us}")


def parse_guard(groups: tuple[str, ...]) -> Guard:
    """The groups of PATTERN. Raises BundleError."""
    source, outside, low, high, not_finite, age = groups
    if outside not in vocabulary.GUARD_RULES:
        raise BundleError("not a line of a plan", where=f"guard %{source}",
                          why=f'"{outside}" is none of {", ".join(vocabulary.GUARD_RULES)}',
                          fix="print the plan anew with `vlacompile inspect --plan`")
    return Guard(int(source), _parsed(low), _parsed(high), outside, not_finite == "1", int(age))


def add_guards(w: SectionWriter, guards: tuple[Guard, ...], number: dict[int, int]) -> None:
    """number: {value of a source: its index}; records are in the order of sources."""
    for g in sorted(guards, key=lambda g: number[g.source]):
        low, high = w.scalars("floats", g.low), w.scalars("floats", g.high)
        w.add("guards", source=number[g.source], outside=vocabulary.GUARD_RULES[g.outside], low_begin=low[0],
              low_count=low[1], high_begin=high[0], high_count=high[1], not_finite=int(g.not_finite), reserved=0,
              max_age_us=g.max_age_us)


def read_guards(r: SectionReader, sources: list[dict]) -> tuple[Guard, ...]:
    floats = r.scalars("floats")
    rules = {v: k for k, v in vocabulary.GUARD_RULES.items()}
    return tuple(Guard(sources[g["source"]]["value"], tuple(floats[g["low_begin"]: g["low_begin"] + g["low_count"]]),
                       tuple(floats[g["high_begin"]: g["high_begin"] + g["high_count"]]), rules[g["outside"]],
                       g["not_finite"] == 1, g["max_age_us"]) for g in r.rows("guards"))
