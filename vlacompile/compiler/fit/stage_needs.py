"""Memory that each stage needs in each precision that it may have, from shapes alone: no weight is read.

Owns the conversion of staged graphs and a recipe to `StageNeed`. Must not know boards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from vlacompile.compiler.fit.liveness import live_peak, value_bytes
from vlacompile.compiler.precision.assign.candidates import Choice, admits, choices
from vlacompile.compiler.precision.assign.layer_costs import weight_bytes
from vlacompile.compiler.staging.find_depth import find_depth
from vlacompile.compiler.staging.identical_stages import identical_stages
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlart.bundle.plan.arena import arena_offsets

ORDER = ("fp32", "fp16", "int8", "int4")  # by increasing loss


@dataclass(frozen=True)
class Piece:
    """A weight tensor. split: whether its layer can be split over its outputs."""

    weight: str
    shape: tuple[int, ...]
    split: bool
    bytes: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True)
class LayerNeed:
    """Of equal layers as a loop, in fp16. layers: how many. table: bytes of their weights, which are no engine's; rest:
    of the stage's other weights. parts: engines that stand for the stage."""

    layers: int
    table: int
    rest: int
    activations: int
    parts: int = 3


@dataclass(frozen=True)
class StageNeed:
    """weights: bytes in an engine, activations: peak bytes; both per scheme that the stage may have, by increasing
    loss. numbers: elements of its weights. task_only: depends on the task alone. outputs: bytes of its results.
    engine: the first of the stages that share an engine. pieces: its largest weights. by_layer: where fp16 is
    possible and it has equal layers."""

    name: str
    numbers: int
    weights: Mapping[str, int]
    activations: Mapping[str, int]
    task_only: bool = False
    outputs: int = 0
    engine: str = ""
    pieces: tuple[Piece, ...] = field(default=())
    by_layer: LayerNeed | None = None

    @property
    def schemes(self) -> tuple[str, ...]:
        return tuple(self.weights)


@dataclass(frozen=True)
class Needs:
    """values: bytes of all values between stages, in the dtypes of a board's engines. open: the recipe does not set the
    precision, so it is chosen here."""

    policy: str
    stages: tuple[StageNeed, ...]
    values: int
    open: bool


def needs_of(staged: Staged, recipe: PrecisionRecipe) -> Needs:
    """Raises ConfigError for rules that apply to no layer."""
    silent = not recipe.reduced
    wanted = leaving_open(recipe) if silent else recipe
    chosen: dict[str, list[Choice]] = {}
    for c in choices(staged, wanted, "tensorrt"):
        chosen.setdefault(c.layer.stage, []).append(c)
    owners = identical_stages(staged.stages)
    stages = tuple(_need(s, staged, chosen.get(s.name, []), wanted, owners[s.name]) for s in staged.stages)
    placed = [t for n, t in staged.types.items() if n not in staged.constants]
    placed += [staged.types[c.result] for s in staged.stages for c in s.carries]
    tables = sum(value_bytes(t, False) for t in staged.constants.values())
    return Needs(staged.program.name, stages, arena_offsets(placed, "tensorrt")[1] + tables, silent)


def leaving_open(recipe: PrecisionRecipe) -> PrecisionRecipe:
    """The recipe with fp16 as the base, and lower precision allowed for every layer."""
    return replace(recipe, base="fp16", layers=AUTO, schemes=("int8", "int4"))


def _need(stage: StageGraph, staged: Staged, found: list[Choice], recipe: PrecisionRecipe, engine: str) -> StageNeed:
    schemes = _schemes(found, recipe)
    updates = {staged.program.sources[n].update for n in stage.sources}
    layers = {c.layer.weight: c.layer for c in found}
    fp16 = recipe.base == "fp16"
    pieces = tuple(Piece(n, x.shape, x.kind == "linear", {s: _stored(found, recipe, s)[n] for s in schemes})
                   for n, x in layers.items() if x.weights > 1 << 24)
    return StageNeed(
        stage.name, sum(t.numel() for t in stage.constants.values()),
        {s: _weights(stage, found, recipe, s) for s in schemes},
        {s: live_peak(stage.graph, fp16 or s == "fp16") for s in schemes}, updates <= {"task", "static"},
        sum(staged.types[p.value].bytes for p in stage.outputs), engine, pieces,
        _by_layer(stage) if "fp16" in schemes else None)


def _by_layer(stage: StageGraph) -> LayerNeed | None:
    depth, _ = find_depth(stage)
    if depth is None:
        return None
    half = {torch.float32: 2, torch.float16: 1}[next(iter(depth.found.tables))[0].meta["val"].dtype]
    return LayerNeed(depth.layers, depth.bytes // half, depth.rest // half, live_peak(stage.graph, fp16=True))


def _schemes(found: list[Choice], recipe: PrecisionRecipe) -> tuple[str, ...]:
    """Schemes of the stage as a whole: those that the recipe leaves open, or the one that it sets for most weights."""
    if any(c.scheme == AUTO for c in found):
        offered = {recipe.base, *recipe.schemes}
        return tuple(s for s in ORDER if s in offered and not (s == "fp32" and "fp16" in offered))
    numbers: dict[str, int] = {}
    for c in found:
        numbers[c.scheme] = numbers.get(c.scheme, 0) + c.layer.weights
    return (max(numbers, key=numbers.__getitem__) if numbers else recipe.base,)


def _stored(found: list[Choice], recipe: PrecisionRecipe, scheme: str) -> dict[str, int]:
    """{weight: bytes}; a weight that several layers read is stored in the widest scheme among them."""
    sizes: dict[str, int] = {}
    for c in found:
        x = c.layer
        own = c.scheme if c.scheme != AUTO else scheme if scheme in admits(x, "tensorrt") else _otherwise(recipe)
        sizes[x.weight] = max(sizes.get(x.weight, 0), weight_bytes(x, own, recipe.block))
    return sizes


def _otherwise(recipe: PrecisionRecipe) -> str:
    """Scheme of a layer that does not support the scheme of its stage."""
    return "int8" if "int8" in recipe.schemes else recipe.base


def _weights(stage: StageGraph, found: list[Choice], recipe: PrecisionRecipe, scheme: str) -> int:
    sizes = _stored(found, recipe, scheme)
    return sum(sizes[n] if n in sizes else value_bytes(t, recipe.base == "fp16") for n, t in stage.constants.items())
