"""The choice of schemes as an integer program: one option per unit; minimal time or bytes within budgets of error,
bytes and time.

A multiple-choice knapsack with one constraint per action dimension; a weight that several units store identically
counts once. Solved exactly by HiGHS (scipy.optimize.milp). Knows numbers only: neither graphs nor schemes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array


@dataclass(frozen=True)
class Option:
    """squared: f64[D], squared error that it adds per action dimension. stores: {key of stored data: bytes}; data that
    several chosen options store under the same key is stored once."""

    name: str
    squared: tuple[float, ...]
    time_us: float
    stores: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """squared: per dimension, the remaining error budget (squared); bytes, time_us: None: no limit."""

    squared: tuple[float, ...]
    bytes: float | None = None
    time_us: float | None = None


@dataclass(frozen=True)
class Solution:
    """options: name of the chosen option per unit. value: the minimised quantity."""

    options: tuple[str, ...]
    value: float


def solve(units: tuple[tuple[Option, ...], ...], limits: Limits, minimise: str) -> Solution | None:
    """minimise: "latency" (us), "bytes", or "error" (of the worst dimension: its sum of squared errors in units of
    limits.squared, which then are not limits). None: no choice is within the limits. Deterministic.
    """
    flat = [(u, o) for u, options in enumerate(units) for o in options if _possible(o, limits, minimise)]
    if len({u for u, _ in flat}) < len(units):
        return None
    if not flat:
        return Solution((), 0.0)
    sized = minimise == "bytes" or limits.bytes is not None
    names = sorted({n for _, o in flat for n in o.stores}) if sized else []
    sizes = {n: max(o.stores.get(n, 0) for _, o in flat) for n in names}
    first_store, worst = len(flat), len(flat) + len(names)
    rows = _Rows(worst + 1)
    for u in range(len(units)):
        rows.add({i: 1.0 for i, (v, _) in enumerate(flat) if v == u}, 1.0, 1.0)
    scale = [x if x > 0 else 1.0 for x in limits.squared]
    for d, limit in enumerate(limits.squared):
        row = {i: o.squared[d] / scale[d] for i, (_, o) in enumerate(flat)}
        if minimise == "error":
            rows.add(row | {worst: -1.0}, -np.inf, 0.0)
        else:
            rows.add(row, -np.inf, limit / scale[d])
    for i, (_, o) in enumerate(flat):
        for j, n in enumerate(names):
            if n in o.stores:  # a chosen option implies that its data is stored
                rows.add({i: 1.0, first_store + j: -1.0}, -np.inf, 0.0)
    times = {i: o.time_us for i, (_, o) in enumerate(flat)}
    stored = {first_store + j: float(sizes[n]) for j, n in enumerate(names)}
    if limits.time_us is not None:
        unit = max(limits.time_us, 1e-9)
        rows.add({i: t / unit for i, t in times.items()}, -np.inf, limits.time_us / unit)
    if limits.bytes is not None:
        unit = max(limits.bytes, 1.0)
        rows.add({j: b / unit for j, b in stored.items()}, -np.inf, limits.bytes / unit)
    objective = np.zeros(worst + 1)
    for i, value in {"latency": times, "bytes": stored, "error": {worst: 1.0}}[minimise].items():
        objective[i] = value
    upper = np.ones(worst + 1)
    upper[worst] = np.inf if minimise == "error" else 0.0
    # No presolve: HiGHS 1.12 in SciPy 1.17 prints a line to stdout when its postsolve has a rounding error, and these
    # problems are small.
    found = milp(objective / max(objective.max(), 1e-12), constraints=rows.constraints(),
                 integrality=[1] * worst + [0], bounds=Bounds(np.zeros(worst + 1), upper),
                 options={"mip_rel_gap": 0.0, "presolve": False})
    if found.x is None:
        return None
    chosen = [o for (_, o), x in zip(flat, found.x, strict=False) if x > 0.5]
    return Solution(tuple(o.name for o in chosen), _value(chosen, scale, minimise))


def _possible(option: Option, limits: Limits, minimise: str) -> bool:
    """Whether the option can be chosen at all; others are excluded, as they would only worsen the scaling."""
    if minimise == "error":
        return bool(np.isfinite(option.squared).all())
    return all(e <= limit for e, limit in zip(option.squared, limits.squared, strict=True))


def _value(chosen: list[Option], scale: list[float], minimise: str) -> float:
    if minimise == "latency":
        return sum(o.time_us for o in chosen)
    if minimise == "bytes":
        return float(sum(stored_once(chosen).values()))
    return max((sum(o.squared[d] for o in chosen) / s for d, s in enumerate(scale)), default=0.0)


def stored_once(chosen: list[Option]) -> dict[str, int]:
    """{key of stored data: bytes} of these options together."""
    return {n: b for o in chosen for n, b in o.stores.items()}


class _Rows:
    """Sparse constraints, row by row."""

    def __init__(self, columns: int):
        self.columns = columns
        self.rows: list[tuple[dict[int, float], float, float]] = []

    def add(self, row: dict[int, float], low: float, high: float) -> None:
        self.rows.append((row, low, high))

    def constraints(self) -> LinearConstraint:
        matrix = lil_array((len(self.rows), self.columns))
        for r, (row, _, _) in enumerate(self.rows):
            for column, x in row.items():
                matrix[r, column] = x
        return LinearConstraint(matrix.tocsr(), [low for _, low, _ in self.rows], [high for _, _, high in self.rows])
