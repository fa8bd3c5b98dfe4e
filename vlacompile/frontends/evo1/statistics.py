"""norm_stats.json of Evo-1: {arm: {dataset: {"observation.state" and "action": {"min": [...], ...}}}}; earlier versions
have no data sets. The formulas are those of scripts/Evo1_server.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.evo1.files import STATISTICS
from vlacompile.frontends.finite_numbers import finite_numbers, is_below
from vlacompile.frontends.lerobot.files import read_json
from vlart.errors import SourceError, nearest

NUMBERS = {"bounds": ("min", "max"), "bounds_q99": ("q01", "q99"), "normal": ("mean", "std")}
STATE, ACTION, EPS = "observation.state", "action", 1e-8
_SAME = "use norm_stats.json and the weights of one training"


@dataclass(frozen=True)
class Scale:
    """first, second [d]: ends of a range, or mean and deviation."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    normal: bool

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.tensor(self.first), torch.tensor(self.second)
        if self.normal:
            return (x - first) / (second + EPS)
        return torch.clamp(2 * (x - first) / (second - first + EPS) - 1, -1.0, 1.0)

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.tensor(self.first), torch.tensor(self.second)
        return x * (second + EPS) + first if self.normal else (x + 1.0) / 2.0 * (second - first + EPS) + first


def scales(path: Path, key: str | None, mode: str) -> tuple[str, Scale, Scale]:
    """(key, of the state, of the actions). Raises SourceError."""
    where = path / STATISTICS
    if not where.is_file():
        raise SourceError(f"{STATISTICS} is missing", where=str(path),
                          why="it has the ranges of state and actions; the robot would get numbers in [-1, 1]",
                          fix="copy the directory that the training wrote again, completely")
    if mode not in NUMBERS:
        raise SourceError(f'normalization_type = "{mode}" is not known', where=str(path / "config.json"),
                          why=nearest(mode, NUMBERS), fix="use config.json of the training")
    rows = _rows(read_json(where))
    chosen = key or (next(iter(rows)) if len(rows) == 1 else None)
    if chosen not in rows:
        what = f'there are no statistics "{chosen}"' if chosen else "the checkpoint has statistics of several"
        raise SourceError(what, where=str(where), why=f"there are {', '.join(rows) or 'none'}",
                          fix="add --unnorm-key ARM/DATASET, with one of them")
    assert chosen is not None
    state, action = (_scale(where, chosen, rows[chosen], name, mode) for name in (STATE, ACTION))
    return chosen, state, action


def _rows(table: dict) -> dict[str, dict]:
    rows = {}
    for arm, content in table.items():
        if isinstance(content, dict) and (STATE in content or ACTION in content):
            rows[arm] = content
        elif isinstance(content, dict):
            rows |= {f"{arm}/{name}": row for name, row in content.items() if isinstance(row, dict)}
    return rows


def _scale(where: Path, key: str, row: dict, name: str, mode: str) -> Scale:
    entry = row.get(name)
    found = [finite_numbers(entry.get(n)) if isinstance(entry, dict) else None for n in NUMBERS[mode]]
    if None in found or len(found[0] or ()) != len(found[1] or ()):
        raise SourceError(f'{" and ".join(NUMBERS[mode])} of "{name}" are missing or do not fit each other',
                          where=f"{where}: {key}", why="finite numbers are needed, one for each of the robot's",
                          fix=_SAME)
    first, second = found
    assert first is not None and second is not None
    low = (0.0,) * len(first) if mode == "normal" else first
    if any(map(is_below, second, low)):
        raise SourceError(f'statistics of "{name}" are damaged', where=f"{where}: {key}",
                          why=f"{NUMBERS[mode][1]} is below {'0' if mode == 'normal' else NUMBERS[mode][0]}", fix=_SAME)
    return Scale(first, second, mode == "normal")
