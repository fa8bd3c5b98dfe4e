"""Costs of a backbone: ms per instruction and per replan, from the measured stages of a profile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vlart.errors import ConfigError, nearest


@dataclass(frozen=True)
class Cost:
    task_ms: float
    replan_ms: float
    source: str


def read_profile(path: str | Path, backbones: tuple[str, ...]) -> dict[str, Cost]:
    """{backbone: cost} from a profile as written by `make demo`: per policy the median latency of every stage and how
    often it ran in a number of episodes and observations. A stage that ran once per episode is charged per instruction;
    the others are charged per replan, in proportion to their runs. Raises ConfigError."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the profile", where=str(path), why=str(error), fix="give a JSON file") from error
    out = {}
    for name in backbones:
        try:
            row = document[name]
        except (KeyError, TypeError) as error:
            raise ConfigError(f'the profile does not contain "{name}"', where=str(path),
                              why=nearest(name, document if isinstance(document, dict) else ()),
                              fix="give another profile, or --cost") from error
        try:
            once, often = row["episodes"], row["observations"]
            times = [(s["runs"], s["median_ms"]) for s in row["stages"]]
            task = sum(ms for runs, ms in times if runs <= once)
            replan = sum(ms * runs / often for runs, ms in times if runs > once)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ConfigError(f'the profile of "{name}" cannot be parsed', where=str(path),
                              why=f"{type(error).__name__}: {error}", fix='it needs "episodes", "observations", and '
                                                                          '"stages"'
                              ' with "runs" and "median_ms"') from error
        out[name] = Cost(task, replan, f"{Path(path).name}, {row.get('threads', '?')} thread(s)")
    return out


def parse_cost(text: str) -> tuple[str, Cost]:
    """BACKBONE=TASK_MS+REPLAN_MS. Raises ConfigError."""
    name, _, numbers = text.partition("=")
    task, _, replan = numbers.partition("+")
    try:
        cost = Cost(float(task), float(replan), "given")
    except ValueError as error:
        raise ConfigError(f'"{text}" is not a cost', where="--cost", why=str(error),
                          fix="write NAME=TASK_MS+REPLAN_MS, e.g. heavy=38.8+3.1") from error
    if not (0 <= cost.task_ms < 1e9 and 0 <= cost.replan_ms < 1e9):
        raise ConfigError(f'"{text}" is not a cost', where="--cost", why="a time must be finite and not negative",
                          fix="write NAME=TASK_MS+REPLAN_MS")
    return name, cost
