"""What a plan says of the content and the age of its sources."""

from __future__ import annotations

from dataclasses import dataclass, field


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


@dataclass(frozen=True)
class TokenRange:
    """source: its value, of integers that are rows of a table with `rows` rows."""

    source: int
    rows: int
