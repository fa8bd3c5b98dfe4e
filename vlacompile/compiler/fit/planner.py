"""Whether a policy fits a board, and how: precision per stage, residency of engines, and what would make it fit.

Owns the order in which measures are tried: first those without loss (mapping files, unloading the language encoder),
then lower precision where needed, then swap for building, then loading engines in every replan. Action error is not
considered here: the precision assignment does that, within the choices that are left open.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from vlacompile.compiler.fit.choose import BY_LAYER, Chosen, Engine, Loading, choose, measure, smallest
from vlacompile.compiler.fit.engine_memory import Budget
from vlacompile.compiler.fit.stage_needs import Needs, Piece, StageNeed
from vlart.errors import BudgetError

ENDLESS = 1 << 50  # bytes of swap: no limit


@dataclass(frozen=True)
class DepthFit:
    """Equal layers as one engine that is bound to the weights of each, beside one engine for all of them, in fp16.
    Bytes: build, peaks without the context; files, of the engines; resident, while running, the layers' weights
    included. launches: how many more. refit: what the other way to a loop would take, an engine per layer that is
    stripped of its weights and refitted when it is loaded, which is priced and not built. table: bytes of the layers'
    weights: as inputs they may be laid out anew in every run, refitted once when they are loaded."""

    layers: int
    looped_build: int
    unrolled_build: int
    looped_files: int
    unrolled_files: int
    looped_resident: int
    unrolled_resident: int
    launches: int
    refit_build: int = 0
    refit_resident: int = 0
    table: int = 0


@dataclass(frozen=True)
class StageFit:
    """scheme: as planned; fixed: whether the recipe allows no other. engine: the stage whose engine it shares; sizes
    are attributed to that stage. residency: one of choose.RESIDENCIES. build: peak bytes of building it.
    layers: how many equal layers are a loop of one engine; 0: all are in one. depth: what either would take.
    split: {weight: parts}; whole: {weight: bytes} of tables that cannot be split (not operands of a product), although
    they exceed the largest single allocation."""

    stage: str
    engine: str
    scheme: str
    fixed: bool
    residency: str
    weights: int
    activations: int
    outputs: int
    build: int
    split: Mapping[str, int]
    whole: Mapping[str, int]
    layers: int = 0
    depth: DepthFit | None = None


@dataclass(frozen=True)
class Fit:
    """fits: running fits into memory, and building into memory and swap. spare: bytes, negative if it does not fit.
    build, swap: bytes of the largest build, and the part that needs swap. values: bytes of values between stages;
    library: stored results of further instructions. measures: what the plan does; advice: what would help further.
    open: the recipe does not set the precision, so it is chosen here; rules: (layers, scheme) of that choice. moments:
    (what happens, bytes then): every build, every load, and running.
    modelled: nothing was run on a board."""

    policy: str
    board: str
    fits: bool
    spare: int
    usable: int
    context: int
    values: int
    library: int
    peak: int
    moment: str
    build: int
    builds: str
    swap: int
    stages: tuple[StageFit, ...]
    measures: tuple[str, ...]
    advice: tuple[str, ...]
    open: bool
    rules: tuple[tuple[str, str], ...]
    moments: tuple[tuple[str, int], ...] = ()
    modelled: bool = True

    def as_dict(self) -> dict:
        return asdict(self) | {"verdict": self.verdict}

    @property
    def verdict(self) -> str:
        if not self.fits:
            return f"does not fit, {_mb(-self.spare)} short"
        return f"fits, {_mb(self.spare)} spare" + (f", with {_mb(self.swap)} of swap to build" if self.swap else "")

    def require(self) -> None:
        """Raises BudgetError if it does not fit."""
        if self.fits:
            return
        biggest = max(self.stages, key=lambda s: s.weights + s.activations)
        raise BudgetError(
            f'policy "{self.policy}" does not fit', where=f'target "{self.board}", {_mb(self.usable)} usable',
            why=f"{self.moment} takes at least {_mb(self.peak)}; the largest stage is {biggest.stage}, "
                f"{_mb(biggest.weights + biggest.activations)} in {biggest.scheme}",
            fix="; ".join(self.advice) or "choose a board with more memory, or a smaller policy",
            reachable={"memory_mb": self.peak / 1e6})


def plan_fit(needs: Needs, budget: Budget, *, instructions: int | None = None, others: Iterable[Budget] = ()) -> Fit:
    """instructions: how many are compiled in advance, so that their language stages are not on the board; None: any
    instruction may come. others: boards to suggest if this one is too small."""
    engines = _engines(needs.stages, instructions)
    found = _first(engines, budget, needs.values, instructions)
    fits = found is not None
    if found is None:
        found = _least(engines, budget, needs.values, instructions)
    residency = {e.name: found.loading.of(e) for e in engines}
    by_name = {e.name: e for e in engines}
    stages = tuple(_stage_fit(s, needs.open, found, residency[s.engine or s.name], budget,
                              by_name[s.engine or s.name]) for s in needs.stages)
    left = sum(e.outputs for e in engines if found.loading.of(e) == "library")
    advice = _to_spare(needs, engines, found, budget, instructions) if fits else \
        _to_fit(needs, found, budget, instructions, others)
    rules = tuple((f"{s.stage}/*", s.scheme) for s in stages if s.scheme != "fp16") if needs.open else ()
    return Fit(needs.policy, budget.name, fits, budget.usable - found.peak, budget.usable, budget.context, needs.values,
               left, found.peak, found.moment, found.build, found.builds, max(0, found.build - budget.usable), stages,
               (*_measures(stages, found, fits), *_costs(stages, needs.open and fits)), tuple(advice),
               needs.open, rules, found.moments)


def _engines(stages: tuple[StageNeed, ...], instructions: int | None) -> tuple[Engine, ...]:
    """One per engine. It may be unloaded only if all stages that share it may be; its results stay: those of one
    instruction among the values, those of every further one in the library."""
    owned: dict[str, list[StageNeed]] = {}
    for s in stages:
        owned.setdefault(s.engine or s.name, []).append(s)
    further = max(0, (instructions or 1) - 1)
    return tuple(_engine(name, users, further) for name, users in owned.items())


def _engine(name: str, users: list[StageNeed], further: int) -> Engine:
    need = users[0]
    task_only, outputs = all(u.task_only for u in users), further * sum(u.outputs for u in users)
    by = need.by_layer
    if by is None:
        return Engine(name, need.numbers, need.weights, need.activations, task_only, outputs)
    return Engine(name, need.numbers, {**need.weights, BY_LAYER: by.table + by.rest},
                  {**need.activations, BY_LAYER: by.activations}, task_only, outputs, by.table, by.layers, by.parts)


def _first(engines: tuple[Engine, ...], budget: Budget, base: int, instructions: int | None) -> Chosen | None:
    """The choice with the least loss, from the first group of residency schemes in which any fits."""
    for ways, swap in _ways(engines, instructions):
        room = replace(budget, swap=ENDLESS) if swap else budget
        found = [c for w in ways if (c := choose(engines, room, base, w)) is not None]
        if found:
            return min(found, key=lambda c: c.loss)
    return None


def _ways(engines: tuple[Engine, ...], instructions: int | None) -> list[tuple[list[Loading], bool]]:
    """(residency schemes, whether builds may use any amount of swap): groups in order of preference."""
    tasks = ["resident", "per task"] if any(e.task_only for e in engines) else ["resident"]
    tasks = tasks if instructions is None else ["library"]
    resident = [Loading(mapped, task, "resident") for task in tasks for mapped in (False, True)]
    replan = [Loading(True, tasks[-1] if tasks[-1] != "resident" else "per replan", "per replan")]
    return [(ways, swap) for ways in (resident, replan) for swap in (False, True)]


def _least(engines: tuple[Engine, ...], budget: Budget, base: int, instructions: int | None) -> Chosen:
    """The choice that comes closest to fitting, in the smallest precisions."""
    schemes = {e.name: smallest(e) for e in engines}
    ways = [w for group, _ in _ways(engines, instructions) for w in group]
    return min((measure(engines, schemes, budget, base, w) for w in ways), key=lambda c: c.peak)


def _stage_fit(need: StageNeed, free: bool, found: Chosen, residency: str, budget: Budget, own: Engine) -> StageFit:
    engine = need.engine or need.name
    chosen, owner = found.schemes[engine], engine == need.name
    scheme = "fp16" if chosen == BY_LAYER else chosen
    leaves = residency == "library"
    large = {p: p.bytes[scheme] for p in need.pieces if owner and not leaves and p.bytes[scheme] > budget.contiguous}
    split = {_path(p): math.ceil(size / budget.contiguous) for p, size in large.items() if p.split}
    whole = {_path(p): size for p, size in large.items() if not p.split}
    weights = need.weights[scheme] if owner else 0
    return StageFit(need.name, engine, scheme, not free and len(need.schemes) == 1, residency, weights,
                    need.activations[scheme] if owner else 0, need.outputs,
                    budget.context + own.build(chosen) if owner and not leaves else 0, split, whole,
                    own.layers if chosen == BY_LAYER else 0, _depth_fit(own) if owner and not leaves else None)


def _depth_fit(engine: Engine) -> DepthFit | None:
    if BY_LAYER not in engine.weights:
        return None
    whole = "fp16"
    return DepthFit(engine.layers, engine.build(BY_LAYER), engine.build(whole), engine.file(BY_LAYER),
                    engine.file(whole), engine.resident(BY_LAYER), engine.resident(whole),
                    engine.layers + engine.parts - 2, engine.refit_build(), engine.refit_resident(), engine.table)


def _path(piece: Piece) -> str:
    return piece.weight.replace("__", ".")


def _measures(stages: tuple[StageFit, ...], found: Chosen, fits: bool) -> Iterator[str]:
    """Deviations of the plan from simply loading every engine."""
    if not fits:
        return
    if found.loading.mapped:
        yield "plan files are mapped, not read into a buffer"
    for residency, text in (("per task", "loaded for a new instruction, and unloaded before the others are loaded"),
                            ("library", "not on the board: its results are precomputed"),
                            ("per replan", "loaded one after the other, in every replan")):
        names = [s.stage for s in stages if s.residency == residency and s.stage == s.engine]
        if names:
            yield f"{', '.join(names)}: {text}"
    for owner in dict.fromkeys(s.engine for s in stages):
        alike = [s.stage for s in stages if s.engine == owner != s.stage]
        if alike:
            yield f"{', '.join(alike)}: run by the engine of {owner}, which has the same weights"
    for s in stages:
        if s.depth is not None and s.layers and s.stage == s.engine:
            yield (f"{s.stage}: one engine for its {s.layers} equal layers, bound to the weights of each: "
                   f"{_mb(s.depth.looped_build)} to build instead of {_mb(s.depth.unrolled_build)}, "
                   f"{s.depth.launches} more launches")
        for weight, parts in s.split.items():
            yield f"{s.stage}: {weight} is split over its outputs into {parts} products, each within one allocation"
        for weight, size in s.whole.items():
            yield f"{s.stage}: {weight} needs {_mb(size)} in one allocation, more than a busy board is assumed to grant"


def _costs(stages: tuple[StageFit, ...], chosen: bool) -> Iterator[str]:
    """Notes on precisions that were chosen by memory alone."""
    names = [s.stage for s in stages if s.scheme == "int8" and s.stage == s.engine]
    if chosen and names:
        yield (f"{', '.join(names)} in int8: the action error is measured by a build with Policy(calibration=...); "
               f"without "
               "real observations it is not measured, and `flash` refuses the bundle")


def _to_spare(needs: Needs, engines: tuple[Engine, ...], found: Chosen, budget: Budget,
              instructions: int | None) -> Iterator[str]:
    """If it fits: what would lose less precision, or free memory."""
    freed = sum(e.resident(found.schemes[e.name]) for e in engines if e.task_only)
    if instructions is None and freed:
        yield f"known instructions (--instructions N) take the language stages off the board: {_mb(freed)}"
    if not found.loading.mapped:
        mapped = measure(engines, found.schemes, budget, needs.values, replace(found.loading, mapped=True))
        if mapped.peak < found.peak:
            yield f"mapping plan files instead of reading them saves another {_mb(found.peak - mapped.peak)}"
    better = _with_swap(engines, found, budget, needs.values, instructions)
    if better is not None:
        changed = [f"all layers of {n} in one engine" if found.schemes[n] == BY_LAYER and s == "fp16" else f"{n} in {s}"
                   for n, s in better.schemes.items() if s != found.schemes[n]]
        yield f"with {_mb(better.build - budget.usable)} of swap to build: {', '.join(changed)}"


def _with_swap(engines: tuple[Engine, ...], found: Chosen, budget: Budget, base: int,
               instructions: int | None) -> Chosen | None:
    """The choice with a smaller loss that needs the least swap."""
    builds = {budget.context + e.build(s) for e in engines for s in e.weights}
    for most in sorted(x for x in builds if x > budget.usable + budget.swap and found.loss > 0):
        calm = _first(engines, replace(budget, swap=most - budget.usable), base, instructions)
        if calm is not None and calm.loss < found.loss:
            return calm
    return None


def _to_fit(needs: Needs, found: Chosen, budget: Budget, instructions: int | None,
            others: Iterable[Budget]) -> Iterator[str]:
    """If it does not fit: what would make it fit."""
    if instructions is None and any(s.task_only for s in needs.stages):
        known = plan_fit(needs, budget, instructions=1)
        if known.fits:
            yield "with known instructions (--instructions N) it fits"
    fixed = [s for s in needs.stages if len(s.schemes) == 1 and s.schemes[0] != "int4"]
    if fixed:
        big = max(fixed, key=lambda s: s.weights[s.schemes[0]])
        yield f'the recipe fixes {big.name} in {big.schemes[0]}: leave it to "auto"'
    larger = [b.name for b in others if plan_fit(needs, b, instructions=instructions).fits]
    yield f"it fits {larger[0]}" if larger else "it fits no known board"
    yield f"{_mb(found.peak - budget.usable)} less of weights or activations"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
