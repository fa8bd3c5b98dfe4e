"""The recorded figures that the pages are made from, and the tables that they are drawn as."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MISSING = "Not measured yet.\n"


def figures_of(relative: str) -> dict:
    """Of a JSON file in the repository; empty where it is not there."""
    path = ROOT / relative
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def row_text(cells: Iterable[object]) -> str:
    """One line of a table."""
    return " ".join(["|", *(f"{cell} |".lstrip() for cell in cells)])


def table(titles: Sequence[str], rows: Iterable[Iterable[object]], *about: str) -> str:
    """A table in Markdown. about: lines below it, as what it was measured on."""
    lines = [row_text(titles), "|---" * len(titles) + "|", *map(row_text, rows), *(("", *about) if about else ()), ""]
    return "\n".join(lines)
