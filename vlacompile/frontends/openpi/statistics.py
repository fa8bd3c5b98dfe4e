"""openpi's norm_stats.json: numbers of state and actions, and the two formulas that use them.

Every number is normalised in robot units; a robot with fewer numbers than the statistics is one whose statistics were
padded with zeros (src/openpi/transforms.py: Normalize, Unnormalize).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.finite_numbers import finite_numbers, is_below
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.openpi.files import ASSETS, STATISTICS, asset_ids
from vlacompile.frontends.openpi.settings import OPTION, Settings
from vlart.errors import SourceError

EPS = 1e-6
_AGAIN = f"copy {ASSETS}/ of the training's checkpoint into the directory"


@dataclass(frozen=True)
class Affine:
    """(x - low) / width - shift normalises, and back. shift: 0 with mean and deviation, 1 with a range."""

    low: torch.Tensor
    width: torch.Tensor
    shift: float

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.low) / self.width - self.shift

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.shift) * self.width + self.low


def statistics_of(path: Path, settings: Settings) -> dict[str, Affine]:
    """{"state", "actions"}. Raises SourceError."""
    where = path / ASSETS / _asset(path, settings) / STATISTICS
    table = read_json(where).get("norm_stats")
    sizes = {"state": settings.robot.state, "actions": settings.robot.action}
    if not isinstance(table, dict) or not all(isinstance(table.get(n), dict) for n in sizes):
        raise SourceError(f"{STATISTICS} has no statistics of state and actions", where=str(where),
                          why="the robot would get normalised numbers as actions", fix=_AGAIN)
    return {name: _affine(where, name, table[name], size, settings.quantiles) for name, size in sizes.items()}


def _asset(path: Path, settings: Settings) -> str:
    there = asset_ids(path)
    if not there:
        raise SourceError("the checkpoint has no statistics", where=str(path),
                          why=f"there is no {ASSETS}/ASSET/{STATISTICS}; the conversion from JAX copies none",
                          fix=_AGAIN)
    if settings.asset is None and len(there) == 1:
        return there[0]
    if settings.asset not in there:
        raise SourceError("the statistics are not those of the configuration" if settings.asset else
                          "the checkpoint has statistics of several data sets", where=str(path / ASSETS),
                          why=f"there are {', '.join(there)}" + (f", not {settings.asset}" if settings.asset else ""),
                          fix=f"say which are the robot's: {OPTION} ...,asset={there[0]}")
    assert settings.asset is not None
    return settings.asset


def _affine(where: Path, name: str, table: dict, size: int, quantiles: bool) -> Affine:
    numbers = {}
    for key in ("q01", "q99") if quantiles else ("mean", "std"):
        values = finite_numbers(table.get(key))
        if values is None:
            raise SourceError(f'"{key}" of "{name}" is missing or not finite', where=str(where),
                              why="norms=" + ("quantile needs q01, q99" if quantiles else "mean_std needs mean, std"),
                              fix=f"compute the statistics with openpi's compute_norm_stats.py; {_AGAIN}")
        numbers[key] = torch.tensor(values, dtype=torch.float64)
    first, second = numbers.values()
    rest = [float(v) for v in second[size:] - (first[size:] if quantiles else 0)]
    if first.shape != second.shape or len(first) < size or any(v not in (0.0, 1.0) for v in rest):
        raise SourceError(f'the statistics of "{name}" are for another robot', where=str(where),
                          why=f"they have {len(first)} numbers, the robot's {name} has {size}",
                          fix=f"give the robot, {OPTION} ...,robot=..., or the statistics ...,asset=...")
    if any(map(is_below, second.tolist(), first.tolist() if quantiles else [0.0] * len(second))):
        raise SourceError(f'the statistics of "{name}" are damaged', where=str(where),
                          why="q99 is below q01" if quantiles else "a deviation (std) is negative",
                          fix=f"compute the statistics with openpi's compute_norm_stats.py; {_AGAIN}")
    if quantiles:
        width = (second - first + EPS) / 2
        return Affine(first[:size].float(), width[:size].float(), 1.0)
    return Affine(first[:size].float(), (second + EPS)[:size].float(), 0.0)
