"""Which groups of values are rotated before a stage is quantised: those by which actions come out nearer to fp32's.

Every group that can be rotated (rotate/groups.py) is tried on top of those that were taken, without smoothing and with
it; what is compared is the error of actions, and their jerk. Rotating a group that costs products at run time is
offered only if the target's rates say that its linears save more in the lower precision. Must not know graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlacompile.compiler.precision.assign.candidates import choices
from vlacompile.compiler.precision.assign.chunk_jerk import Measured
from vlacompile.compiler.precision.assign.layer_costs import cost
from vlacompile.compiler.precision.assign.quantiser import Quantiser, Treatment, rewriter
from vlacompile.compiler.precision.assign.sensitivity import Inputs, Schemes, Trial
from vlacompile.compiler.precision.quantise.layers import LIMITS, Layer, layers_of
from vlacompile.compiler.precision.rotate.groups import Group, groups_of
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import Target
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe

LESS = 0.98  # share of the error that a change must leave at most, to be worth another layout of the weights
CALM = 1.02  # how many times as jerky as without it a change may be, where no budget is given


@dataclass(frozen=True)
class Rotations:
    """Of one stage, and those identical to it. errors, jerks: of the actions with all its linears that may be quantised
    in `scheme`, the best of each way: "plain", "smoothed", "rotated", "both"; a way that was not tried is absent.
    groups: what is rotated; empty: nothing won. smoothed: channels are rescaled besides. rejected: what was not
    offered, and why."""

    stage: str
    scheme: str
    errors: Mapping[str, float]
    jerks: Mapping[str, float]
    groups: tuple[Group, ...]
    smoothed: bool
    rejected: tuple[str, ...] = ()

    def facts(self, measured: bool) -> dict:
        """For the manifest. measured: whether errors may be shown."""
        return {"stage": self.stage, "scheme": self.scheme, "smoothed": self.smoothed,
                "errors": dict(self.errors) if measured else None, "jerks": dict(self.jerks) if measured else None,
                "groups": [{"kind": g.kind, "value": g.seed, "size": g.size, "linears": len(g.reads),
                            "matrix": g.matrix, "products": len(g.turns)} for g in self.groups]}


def choose_rotations(staged: Staged, quantise: Quantiser, recipe: PrecisionRecipe, target: Target,
                     observations: Sequence[Inputs], progress: Callable[[str], None]) -> tuple[Rotations, ...]:
    """Settles the treatment of every stage of which something can be rotated."""
    chooser = _Chooser(staged, quantise, recipe, target, observations, progress)
    return tuple(found for first in quantise.firsts.values() if (found := chooser.choose(first)) is not None)


class _Chooser:
    def __init__(self, staged: Staged, quantise: Quantiser, recipe: PrecisionRecipe, target: Target,
                 observations: Sequence[Inputs], progress: Callable[[str], None]):
        self.quantise, self.recipe, self.target, self.progress = quantise, recipe, target, progress
        self.staged, self.treatments = staged, {}
        self.trial = Trial(staged, observations, rewriter(quantise, target.backend, self.treatments))
        self.scheme = recipe.integers[0]
        self.layers = self._layers()

    def _layers(self) -> dict[str, list[Layer]]:
        """{stage: its linears that may get the scheme}; those that are protected only where there are no others."""
        for lifted in (0, 2):
            found: dict[str, list[Layer]] = {}
            for c in choices(self.staged, self.recipe, self.target.backend, lifted):
                if c.layer.kind == "linear" and (c.scheme in LIMITS or (
                        c.scheme == AUTO and self.scheme in self.recipe.schemes)):
                    found.setdefault(c.layer.stage, []).append(c.layer)
            if found:
                return found
        return {}

    def choose(self, first: StageGraph) -> Rotations | None:
        mine = [s for s, owner in self.quantise.owners.items() if owner == first.name and s in self.layers]
        if not mine:
            return None
        nodes = dict.fromkeys(x.node for s in mine for x in self.layers[s])
        groups = groups_of(first, nodes, self.quantise.rotate_seed)
        offered, rejected = [], list(groups.notes)
        for group in groups.found:
            why = self._too_dear(first, group)
            offered += [] if why else [group]
            rejected += [f"{first.name}: {group.name} is not rotated: {why}"] if why else []
        if not offered:
            return Rotations(first.name, self.scheme, {}, {}, (), False, tuple(rejected)) if rejected else None
        schemes = {s: dict.fromkeys((x.node for x in self.layers[s]), self.scheme) for s in mine}
        best, found = self._best(first, schemes, list(_units(offered)))
        self.quantise.settle(first.name, best)
        return Rotations(first.name, self.scheme, {w: m.worst for w, m in found.items()},
                         {w: m.jerkiest for w, m in found.items()}, best.groups, best.smoothing is not None,
                         tuple(rejected))

    def _best(self, first: StageGraph, schemes: Schemes,
              units: list[tuple[Group, ...]]) -> tuple[Treatment, dict[str, Measured]]:
        """The better of what is found without smoothing and with it; rotating alone, and smoothing alone, are among
        them."""
        ways: dict[str, tuple[Treatment, Measured]] = {}
        plain = Treatment()
        ways["plain"] = plain, self._measure(first, schemes, plain)
        ways["rotated"] = self._greedy(first, schemes, units, *ways["plain"])
        if self.quantise.method.alpha:
            smoothing = self.quantise.best_smoothing(first)
            smoothed = Treatment(smoothing=smoothing)
            ways["smoothed"] = smoothed, ways["plain"][1] if smoothing is None else self._measure(first, schemes,
                                                                                                  smoothed)
            again = Treatment(smoothing=smoothing or self.quantise.method)
            ways["both"] = self._greedy(first, schemes, units, again, self._measure(first, schemes, again))
        best = ways.get("smoothed", ways["plain"])
        for way in ("rotated", "both"):
            if way in ways and ways[way][0].groups and self._better(ways[way][1], best[1]):
                best = ways[way]
        return best[0], {way: measured for way, (_, measured) in ways.items()}

    def _greedy(self, first: StageGraph, schemes: Schemes, units: list[tuple[Group, ...]], start: Treatment,
                measured: Measured) -> tuple[Treatment, Measured]:
        best, reached = start, measured
        for unit in units:
            tried = Treatment((*best.groups, *unit), best.smoothing)
            self.progress(f"{first.name}: rotate {unit[0].name}" + (f" and {len(unit) - 1} more" * (len(unit) > 1)))
            got = self._measure(first, schemes, tried)
            if self._better(got, reached):
                best, reached = tried, got
        return best, reached

    def _better(self, new: Measured, old: Measured) -> bool:
        allowed = max(self.recipe.max_jerk or 0.0, old.jerkiest * CALM, 1.0)
        return new.worst < LESS * old.worst and new.jerkiest <= allowed

    def _measure(self, first: StageGraph, schemes: Schemes, treatment: Treatment) -> Measured:
        self.treatments[first.name] = treatment
        measured = self.trial.measure(schemes)
        del self.treatments[first.name]
        return measured

    def _too_dear(self, stage: StageGraph, group: Group) -> str:
        """Why a group is not offered; empty: it is. What its linears save in the lower precision must be more than its
        products cost in the one that the rest has."""
        if not group.turns:
            return ""
        rates = getattr(self.target.rates, self.recipe.base, None)
        layers = {x.node: x for x in layers_of(stage)}
        times = [[cost(stage, layers[n], scheme, self.target, self.recipe.block).time_us for n in group.reads]
                 for scheme in (self.recipe.base, self.scheme)]
        if rates is None or any(t is None for of in times for t in of):
            return f"its products would cost time, and target {self.target.name} has no rates to say how much"
        saved = sum(times[0]) - sum(times[1])
        numbers = 2 if self.recipe.base == "fp16" else 4
        price = stage.iterations * sum(
            rates.call_us + max(2e-3 * t.rows * t.features * t.width / rates.linear_gflops,
                                1e-3 * numbers * (2 * t.rows * t.features + t.width ** 2) / rates.gbps)
            for t in group.turns)
        if price < saved:
            return ""
        return (f"its products would take {price:.0f} us, its linears save {max(saved, 0):.0f} us in {self.scheme} "
                f"({self.target.name}, by its rates)")


def _units(groups: Sequence[Group]) -> Iterator[tuple[Group, ...]]:
    """What is decided as one: each stream; all attentions of a stage; all that is turned in front of linears."""
    yield from ((g,) for g in groups if g.kind == "stream")
    for kind in ("heads", "input"):
        found = tuple(g for g in groups if g.kind == kind)
        if found:
            yield found
