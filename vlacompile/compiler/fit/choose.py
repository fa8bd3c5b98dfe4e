"""Which engine gets which precision under one residency scheme: an integer program over bytes.

Minimises the loss of precision (weights below fp16, 4-bit ones counting most) such that the memory suffices at all
times: during each build, each load, and while running. Solved exactly by HiGHS. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from vlacompile.compiler.fit.engine_memory import ENGINE_BYTES, WORKSPACE_BYTES, Budget, build_peak

BY_LAYER = "fp16 by layer"  # equal layers are one engine, and their weights lie beside it
# Relative loss per weight: 4 bits are the last resort, so two weights in int8 are preferred to one in int4. Layers as a
# loop lose no precision, but a launch each: they are preferred to any loss, and to nothing else.
LOSS = {"fp32": 0.0, "fp16": 0.0, BY_LAYER: 0.01, "int8": 1.0, "int4": 4.0}
RESIDENCIES = ("resident", "per task", "library", "per replan")


@dataclass(frozen=True)
class Engine:
    """weights, activations: bytes per scheme. outputs: bytes that remain when the engine is unloaded. Of BY_LAYER,
    table: bytes of the layers' weights, which are among `weights` but in no engine's file; layers: how many; parts:
    engines that stand for this one."""

    name: str
    numbers: int
    weights: Mapping[str, int]
    activations: Mapping[str, int]
    task_only: bool
    outputs: int
    table: int = 0
    layers: int = 0
    parts: int = 1

    def resident(self, scheme: str) -> int:
        return self.file(scheme) + self._table(scheme) + self.activations[scheme] + WORKSPACE_BYTES

    def file(self, scheme: str) -> int:
        """What is read when it is loaded: the table is copied from the mapped file of weights."""
        return self.weights[scheme] - self._table(scheme) + ENGINE_BYTES * (self.parts if scheme == BY_LAYER else 1)

    def build(self, scheme: str) -> int:
        """Peak bytes of building it, without the CUDA context. Of an engine for one layer its weights are inputs:
        assumed are two copies while tactics are timed, as given and as a tactic wants them."""
        return build_peak(self.weights[scheme] - self._table(scheme)) + (
            2 * self.table // self.layers if scheme == BY_LAYER else 0)

    def refit_build(self) -> int:
        """Of BY_LAYER with refittable engines instead: the largest of them, built with its weights in it."""
        return build_peak(max(self.weights[BY_LAYER] - self.table, self.table // self.layers))

    def refit_resident(self) -> int:
        """While running: an engine per layer, filled from the mapped file when it is loaded."""
        return self.resident(BY_LAYER) + (self.layers - 1) * ENGINE_BYTES

    def _table(self, scheme: str) -> int:
        return self.table if scheme == BY_LAYER else 0


@dataclass(frozen=True)
class Loading:
    """mapped: plan files are memory-mapped rather than read into a buffer. task: residency of engines that depend on
    the task alone: "resident", "per task" (loaded, run and unloaded before the others are loaded) or "library" (run
    elsewhere, with only their results on the board). others: "resident" or "per replan" (loaded one after the other, in
    every replan)."""

    mapped: bool
    task: str
    others: str

    def of(self, engine: Engine) -> str:
        return self.task if engine.task_only else self.others


@dataclass(frozen=True)
class Chosen:
    """schemes: {engine: scheme}. peak: bytes while running or loading, at the time that `moment` names; build: bytes of
    the largest build, that of the engine `builds`. moments: (what happens, bytes then): every build, every load, and
    running."""

    loading: Loading
    schemes: Mapping[str, str]
    loss: float
    peak: int
    moment: str
    build: int
    builds: str
    moments: tuple[tuple[str, int], ...] = ()


def choose(engines: tuple[Engine, ...], budget: Budget, base: int, loading: Loading) -> Chosen | None:
    """base: bytes in use at all times, without the context. None: no choice fits, in any precision."""
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
    loss = np.array([LOSS[s] * max(engines[i].numbers, 1) / 1e6 for i, s in flat])  # prefers fp16 without weights too
    found = milp(loss / max(loss.max(), 1.0), constraints=constraints, integrality=np.ones(len(flat)),
                 bounds=Bounds(0.0, 1.0), options={"mip_rel_gap": 0.0, "presolve": False})
    if found.x is None:
        return None
    schemes = {engines[i].name: s for (i, s), x in zip(flat, found.x, strict=True) if x > 0.5}
    result = measure(engines, schemes, budget, base, loading)
    return result if result.peak <= budget.usable else None


def measure(engines: tuple[Engine, ...], schemes: Mapping[str, str], budget: Budget, base: int,
            loading: Loading) -> Chosen:
    """Loss and peaks of given schemes."""
    fixed = budget.context + base + _library(engines, loading)
    peaks = [(fixed + sum(part.get((i, schemes[e.name]), 0) for i, e in enumerate(engines)), moment)
             for moment, part in _moments(engines, loading)] or [(fixed, "running")]
    peak, moment = max(peaks, key=lambda p: p[0])
    builds = [(budget.context + e.build(schemes[e.name]), e.name) for e in engines if loading.of(e) != "library"]
    build, largest = max(builds or [(0, "")])
    loss = sum(LOSS[schemes[e.name]] * e.numbers for e in engines)
    moments = (*((f"building {name}", size) for size, name in builds), *((m, size) for size, m in peaks))
    return Chosen(loading, dict(schemes), loss, peak, moment, build, largest, moments)


def smallest(engine: Engine) -> str:
    return min(engine.weights, key=engine.resident)


def _library(engines: tuple[Engine, ...], loading: Loading) -> int:
    return sum(e.outputs for e in engines if loading.of(e) == "library")


def _buildable(engine: Engine, scheme: str, budget: Budget, loading: Loading) -> bool:
    """Whether the engine can be built. Engines are built one at a time with nothing loaded; only builds use swap."""
    return loading.of(engine) == "library" \
        or budget.context + engine.build(scheme) <= budget.usable + budget.swap


Part = dict[tuple[int, str], int]  # (engine, scheme) -> bytes


def _moments(engines: tuple[Engine, ...], loading: Loading) -> list[tuple[str, Part]]:
    """For each load of an engine, and for running: the bytes that each engine occupies then, per scheme."""
    together = [i for i, e in enumerate(engines) if loading.of(e) == "resident"]
    alone = [i for i, e in enumerate(engines) if loading.of(e) in ("per task", "per replan")]
    kept: Part = {(i, s): engines[i].resident(s) for i in together for s in engines[i].weights}
    found: list[tuple[str, Part]] = [("running", kept)] if together else []
    # largest first, while there is most room for its file; engines loaded one at a time come on top of resident ones
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
