"""The numbers of a data set by which actions and state are normalised: of dataset_statistics.json, else of config.json.

The formulas are those of modeling_prismatic.py and, for the state, of OpenVLA-OFT's evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.finite_numbers import finite_numbers, is_below
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.policy.action_decoding import Affine, from_range
from vlart.errors import SourceError

STATISTICS, CONFIG = "dataset_statistics.json", "config.json"
OPTION = "--unnorm-key"
EPS_OF_OFT = 1e-8


@dataclass(frozen=True)
class Range:
    """low, high, mask [d]: where mask, [low, high] is mapped to [-1, 1]; elsewhere numbers stay as they are."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mask: tuple[bool, ...]

    def decoder(self, epsilon: float) -> Affine:
        return from_range(self.low, self.high, mask=self.mask, epsilon=epsilon)

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        low, high, mask = self._tensors()
        return torch.where(mask, 0.5 * (x + 1) * (high - low + EPS_OF_OFT) + low, x)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        low, high, mask = self._tensors()
        return torch.where(mask, 2 * (x - low) / (high - low + EPS_OF_OFT) - 1, x).clamp(-1.0, 1.0)

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.tensor(self.low), torch.tensor(self.high), torch.tensor(self.mask)


def chosen(path: Path, config: dict, key: str | None) -> tuple[str, dict, Path]:
    """(key, {"action", "proprio", ...}, file) of the data set that the robot belongs to. Raises SourceError."""
    own = path / STATISTICS
    table, where = (read_json(own), own) if own.is_file() else (config.get("norm_stats"), path / CONFIG)
    if not isinstance(table, dict) or not table or not all(isinstance(row, dict) for row in table.values()):
        raise SourceError("the checkpoint has no statistics", where=str(where),
                          why=f"neither {STATISTICS} nor norm_stats in {CONFIG} has a data set's; the robot would get "
                              "numbers in [-1, 1]", fix=f"copy {STATISTICS} of the training into the directory")
    if key is None and len(table) > 1:
        raise SourceError("the checkpoint has statistics of several data sets", where=str(where),
                          why="there are " + ", ".join(table), fix=f"add {OPTION} KEY, with that of the robot")
    key = next(iter(table)) if key is None else key
    if key not in table:
        raise SourceError(f'there are no statistics "{key}"', where=str(where), why="there are " + ", ".join(table),
                          fix=f"add {OPTION} KEY, with one of them")
    return key, table[key], where


def range_of(row: dict, name: str, bounds: bool, where: Path, key: str) -> Range:
    """name: "action" or "proprio". Raises SourceError."""
    table, keys = row.get(name), ("min", "max") if bounds else ("q01", "q99")
    numbers = []
    for k in keys:
        values = finite_numbers(table.get(k)) if isinstance(table, dict) else None
        if values is None:
            raise SourceError(f'"{k}" of "{name}" is missing or not finite', where=f"{where}: {key}",
                              why="without it the robot would get numbers in [-1, 1]",
                              fix=f"copy {STATISTICS} of the training into the directory")
        numbers.append(values)
    assert isinstance(table, dict)
    mask = table.get("mask", [True] * len(numbers[0]))
    if not isinstance(mask, list) or not len(numbers[0]) == len(numbers[1]) == len(mask):
        raise SourceError(f'the statistics of "{name}" do not fit each other', where=f"{where}: {key}",
                          why=f"{keys[0]}, {keys[1]} and mask have different lengths",
                          fix=f"copy {STATISTICS} of the training into the directory")
    damage = {f"{keys[1]} is below {keys[0]}": any(map(is_below, numbers[1], numbers[0])),
              "mask has something else than true and false": any(m not in (False, True) for m in mask)}
    if any(damage.values()):
        raise SourceError(f'the statistics of "{name}" are damaged', where=f"{where}: {key}",
                          why=next(why for why, holds in damage.items() if holds),
                          fix=f"copy {STATISTICS} of the training into the directory")
    return Range(numbers[0], numbers[1], tuple(bool(m) for m in mask))
