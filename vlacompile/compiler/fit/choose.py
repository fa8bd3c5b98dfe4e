"""Which engine gets which precision, under one way of loading them: an integer program over bytes.

Minimises what is lost (fewest weights below fp16, and 4-bit ones count most) while every moment of the board's day
fits: each build, each load, and running. Solved exactly by HiGHS. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from vlacompile.compiler.fit.engine_memory import ENGINE_BYTES, WORKSPACE_BYTES, Budget, build_peak

# What a weight loses, relative to the others: 4 bits are the last resort, so two in 8 come before one in 4.
LOSS = {"fp32": 0.0, "fp16": 0.0, "int8": 1.0, "int4": 4.0}
RESIDENCIES = ("resident", "per task", "library", "per replan")


@dataclass(frozen=True)
class Engine:
    """weights, activations: bytes per scheme. outputs: bytes that stay when it has left."""

    name: str
    numbers: int
    weights: Mapping[str, int]
    activations: Mapping[str, int]
    task_only: bool
    outputs: int

    def resident(self, scheme: str) -> int:
        return self.file(scheme) + self.activations[scheme] + WORKSPACE_BYTES

    def file(self, scheme: str) -> int:
        return self.weights[scheme] + ENGINE_BYTES


@dataclass(frozen=True)
class Loading:
    """mapped: plan files are mapped rather than read into a buffer. task: where engines are that depend on the task
    alone: "resident", "per task" (loaded, run and left before the others are loaded) or "library" (run elsewhere, their
    results on the board). others: "resident" or "per replan" (one after the other, every time)."""

    mapped: bool
    task: str
    others: str

    def of(self, engine: Engine) -> str:
        return self.task if engine.task_only else self.others


@dataclass(frozen=True)
class Chosen:
    """schemes: {engine: scheme}. peak: bytes while running or loading, `moment` says when; build: of the largest build,
    `builds` which engine's."""

    loading: Loading
    schemes: Mapping[str, str]
    loss: float
    peak: int
    moment: str
    build: int
    builds: str


def choose(engines: tuple[Engine, ...], budget: Budget, base: int, loading: Loading) -> Chosen | None:
    """base: bytes that are there throughout, without the context. None: nothing fits, in any precision."""
    flat = [(i, s) for i, e in enumerate(engines) for s in e.weights if _buildable(e, s, budget, loading)]
    if len({i for i, _ in flat}) < len(engines):
        return None
    rows = [np.array([float(i == j) for j, _ in flat]) for i in range(len(engines))]
    constraints = [LinearConstraint(np.array(rows), 1.0, 1.0)] if engines else []
    moments = [[float(part.get(flat[k], 0.0)) / 1e6 for k in range(len(flat))]
               for _, part in _moments(engines, loading)]
    room = (budget.usable - budget.context - base - _library(engines, loading)) / 1e6
    if moments and flat:
        constraints.append(LinearConstraint(np.array(moments), -np.inf, room))
    elif room < 0:
        return None
    if not flat:
        return measure(engines, {}, budget, base, loading)
    loss = np.array([LOSS[s] * max(engines[i].numbers, 1) / 1e6 for i, s in flat])  # nothing to lose: fp16 all the same
    found = milp(loss / max(loss.max(), 1.0), constraints=constraints, integrality=np.ones(len(flat)),
                 bounds=Bounds(0.0, 1.0), options={"mip_rel_gap": 0.0, "presolve": False})
    if found.x is None:
        return None
    schemes = {engines[i].name: s for (i, s), x in zip(flat, found.x, strict=True) if x > 0.5}
    result = measure(engines, schemes, budget, base, loading)
    return result if result.peak <= budget.usable else None


def measure(engines: tuple[Engine, ...], schemes: Mapping[str, str], budget: Budget, base: int,
            loading: Loading) -> Chosen:
    """The same arithmetic for a choice that is made."""
    fixed = budget.context + base + _library(engines, loading)
    peaks = [(fixed + sum(part.get((i, schemes[e.name]), 0) for i, e in enumerate(engines)), moment)
             for moment, part in _moments(engines, loading)] or [(fixed, "running")]
    peak, moment = max(peaks, key=lambda p: p[0])
    builds = [(budget.context + build_peak(e.weights[schemes[e.name]]), e.name) for e in engines
              if loading.of(e) != "library"] or [(0, "")]
    build, largest = max(builds)
    loss = sum(LOSS[schemes[e.name]] * e.numbers for e in engines)
    return Chosen(loading, dict(schemes), loss, peak, moment, build, largest)


def smallest(engine: Engine) -> str:
    return min(engine.weights, key=engine.resident)


def _library(engines: tuple[Engine, ...], loading: Loading) -> int:
    return sum(e.outputs for e in engines if loading.of(e) == "library")


def _buildable(engine: Engine, scheme: str, budget: Budget, loading: Loading) -> bool:
    """One engine at a time, nothing else loaded; swap helps here alone."""
    return loading.of(engine) == "library" \
        or budget.context + build_peak(engine.weights[scheme]) <= budget.usable + budget.swap


Part = dict[tuple[int, str], int]  # (engine, scheme) -> bytes


def _moments(engines: tuple[Engine, ...], loading: Loading) -> list[tuple[str, Part]]:
    """Every moment at which something is loaded, and running: what each engine in each scheme takes then."""
    together = [i for i, e in enumerate(engines) if loading.of(e) == "resident"]
    alone = [i for i, e in enumerate(engines) if loading.of(e) in ("per task", "per replan")]
    kept: Part = {(i, s): engines[i].resident(s) for i in together for s in engines[i].weights}
    found: list[tuple[str, Part]] = [("running", kept)] if together else []
    # the largest first, when there is most room for its file; what is loaded alone comes into what is resident
    order = sorted(together, key=lambda i: -engines[i].numbers)
    for n, i in enumerate(order):
        if not loading.mapped:
            there = set(order[: n + 1])
            part = {k: v for k, v in kept.items() if k[0] in there}
            part |= {(i, s): engines[i].resident(s) + engines[i].file(s) for s in engines[i].weights}
            found.append((f"reading {engines[i].name}", part))
    for i in alone:
        beside = {} if loading.of(engines[i]) == "per task" else kept
        own = {(i, s): engines[i].resident(s) + (0 if loading.mapped else engines[i].file(s))
               for s in engines[i].weights}
        found.append((f"{engines[i].name} alone", beside | own))
    return found
