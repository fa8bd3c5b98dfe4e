"""Evaluation logs: one JSON object per line and episode, as written by `examples/libero_goal/evaluate.py`.

Required: "instruction", "state" (index of the initial state), "success", "replans". A file X.settings.json beside
X.jsonl may name the backbone ("member"), and marks control runs in which the policy got a wrong input on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlart.errors import ConfigError

_KEYS = {"instruction": str, "state": int, "success": bool, "replans": int}


@dataclass(frozen=True)
class Episode:
    backbone: str
    instruction: str
    state: int
    success: bool
    replans: int
    log: str  # name of the file without its extension


def read_logs(given: Iterable[str]) -> list[Episode]:
    """given: paths, or BACKBONE=PATH. Raises ConfigError."""
    episodes: list[Episode] = []
    for text in given:
        name, separator, path = text.partition("=")
        path = Path(path if separator else text)
        episodes += _read(path, name if separator else _member(path))
    return episodes


def _settings(path: Path) -> dict:
    beside = path.with_suffix(".settings.json")
    try:
        return json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    except ValueError as error:
        raise ConfigError("the settings beside the log are not JSON", where=str(beside), why=str(error),
                          fix="run the episodes again") from error


def _member(path: Path) -> str:
    member = _settings(path).get("member")
    if not isinstance(member, str):
        raise ConfigError("the backbone of the log is not known", where=str(path),
                          why=f'{path.with_suffix(".settings.json").name} is missing or names no "member"',
                          fix=f"give it as BACKBONE={path}")
    return member


def _read(path: Path, backbone: str) -> list[Episode]:
    settings = _settings(path)
    for key in ("wrong_instruction", "disturb"):
        if settings.get(key):
            raise ConfigError("the log is of a control run, not of the policy", where=str(path),
                              why=f"its {key} is set", fix="leave it out")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot read the log", where=str(path), why=str(error), fix="give a .jsonl file") from error
    out = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError("the log is not JSON lines", where=where, why=str(error),
                              fix="remove that line") from error
        for key, kind in _KEYS.items():
            value = row.get(key) if isinstance(row, dict) else None
            if type(value) is not kind or (kind is int and value < 0):
                raise ConfigError(f'"{key}" is missing or not of type {kind.__name__}', where=where,
                                  why=f"it is {value!r}", fix=f"an episode needs {', '.join(_KEYS)}")
        out.append(Episode(backbone, row["instruction"], row["state"], row["success"], row["replans"], path.stem))
    if not out:
        raise ConfigError("the log is empty", where=str(path), why="it has no line", fix="leave it out")
    return out


def of_states(episodes: Sequence[Episode], states: frozenset[int] | None) -> list[Episode]:
    """The episodes with these initial states; None: all."""
    return [e for e in episodes if states is None or e.state in states]


def parse_states(text: str) -> frozenset[int]:
    """States as "0-9" or "0-9,12,20-29". Raises ConfigError."""
    out: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or (last and int(last) < int(first)):
            raise ConfigError(f'"{part}" is not a range of states', where="--states", why="a range is FIRST-LAST",
                              fix="write for example 0-9,12")
        out |= set(range(int(first), int(last or first) + 1))
    return frozenset(out)
