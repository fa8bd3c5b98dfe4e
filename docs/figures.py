"""The recorded figures that the pages are made from."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
MISSING = "Not measured yet.\n"


def figures_of(relative: str) -> dict:
    """Of a JSON file in the repository; empty where it is not there."""
    path = ROOT / relative
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
