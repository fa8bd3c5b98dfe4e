"""Reads and writes board records: the one reader, for whoever contributes one and for what is fitted to them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlacompile.profile.board_record import FORMAT, VERSION, BoardRecord
from vlacompile.profile.record_checks import check_record, refusal
from vlart.errors import ConfigError
from vlart.files.atomic import write_file
from vlart.files.tables import from_table

MOST_BYTES = 8 << 20


def read_record(path: Path) -> BoardRecord:
    """Raises ConfigError for what is no record, or cannot be true (record_checks.py)."""
    where = str(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number,
                              parse_float=_number)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f'its "format" is not "{FORMAT}"')
        if document.get("version") != VERSION:
            raise ValueError(f'version {document.get("version")}, this vlacompile reads {VERSION}')
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(where, "it is no board record", str(error)) from error
    record = from_table(BoardRecord, document, where)
    check_record(record, where)
    return record


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _number(text: str) -> float:
    return found if math.isfinite(found := float(text)) else _no_number(text)


def write_record(record: BoardRecord, path: Path) -> None:
    """Checked first: what cannot be read is not written. Raises ConfigError."""
    document = without_nothing(asdict(record))
    check_record(from_table(BoardRecord, document, str(path)), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def write_record_or_keep(record: BoardRecord, path: Path) -> None:
    """write_record; a measurement that is refused is kept beside `path`, since it took a board to make it."""
    try:
        write_record(record, path)
    except ConfigError as error:
        kept = path.with_name(f"{path.name}.refused")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, (json.dumps(without_nothing(asdict(record)), indent=1) + "\n").encode())
        raise ConfigError(error.what, where=error.where, why=error.why,
                          fix=f"if the board was at rest, report it with {kept}, which has all that was measured"
                          ) from error


def place_of(record: BoardRecord, folder: Path) -> Path:
    """By target, then bundle and power mode."""
    return folder / record.device.target / f"{record.bundle.hash[:16]}-{record.device.mode or 'unknown-mode'}.json"


def without_nothing(value: Any) -> Any:
    """As JSON has it: what is None is left out, and tuples are lists; numbers have six digits."""
    if isinstance(value, Mapping):
        return {k: without_nothing(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [without_nothing(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value
