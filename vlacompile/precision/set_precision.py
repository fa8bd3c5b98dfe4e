"""Stages in fp32 -> stages in the precision that the recipe wants, for the engine of the target, and what that costs
in actions.

Owns the order: what layers read on calibration observations (calibrate.py), rescaling (migrate.py), rounding
(quantise.py), rendering (lower.py), choosing (assign.py). Must not know how any of them works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Interpreter

from vlacompile.errors import BudgetError
from vlacompile.policy import Policy
from vlacompile.precision.assign import assign, split
from vlacompile.precision.calibrate import Call, StageSamples, collect, pooled, record_calls
from vlacompile.precision.decision import Assignment, marked
from vlacompile.precision.histogram import Histogram
from vlacompile.precision.half import HalfLimits, halve
from vlacompile.precision.layers import KINDS, LIMITS, QuantisedLayer, layers_of
from vlacompile.precision.lower import DIALECTS, Ranges, lower, values_to_range
from vlacompile.precision.migrate import migrate
from vlacompile.precision.pins import Pin
from vlacompile.precision.quantise import Method, quantise_stage
from vlacompile.precision.sensitivity import Inputs, Rewrite, Schemes, Trial, in_half
from vlacompile.precision.to_half import to_half
from vlacompile.recipe import PrecisionRecipe
from vlacompile.staging.choose_solver import action_error, calibration
from vlacompile.staging.run_stages import StageRunner, stage_module
from vlacompile.staging.stages import Staged, StageGraph
from vlacompile.staging.twins import as_twin, with_one_graph
from vlacompile.target import Target
from vlacompile.verify.metrics import compare


@dataclass(frozen=True)
class Precise:
    """staged: as the target's engine computes it. error, held_out: of the action, on the observations that it was
    calibrated on and on others. simulated: {dialect: action error of the same choice on the others, where there are any,
    layers alone}. notes: what stays in fp32, what was rescaled."""

    staged: Staged
    assignment: Assignment
    error: float
    held_out: float
    simulated: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def report(self) -> tuple[str, ...]:
        held = f", {self.held_out:.4g} on others" if self.assignment.held_out else ""
        lines = [f"action error {self.error:.4g} on calibration observations{held}",
                 *(f"rendered for {d} and simulated: action error {e:.4g}" for d, e in self.simulated.items()),
                 *self.assignment.notes, *self.notes]
        return tuple(f"precision: {line}" for line in lines)


def set_precision(staged: Staged, policy: Policy, recipe: PrecisionRecipe, target: Target,
                  progress: Callable[[str], None]) -> Precise:
    """Raises CalibrationError, ConfigError or BudgetError."""
    progress("read calibration observations")
    known = {n for n, s in policy.sources.items() if s.update == "static"}  # they are constants of the program
    fitted, held = split([{n: t for n, t in x.items() if n not in known} for x in calibration(policy, recipe)])
    staged, owners = with_one_graph(staged)
    firsts = {s.name: s for s in staged.stages if owners[s.name] == s.name}
    calls = pooled(record_calls(staged, fitted), owners)
    method = Method(recipe.calibrator, recipe.percentile, recipe.correct_bias, recipe.int4_method, recipe.block,
                    recipe.smooth)
    quantise = _Quantiser(firsts, owners, calls, method, progress)
    rewriters = {d: _rewriter(quantise, d) for d in DIALECTS}
    mine = rewriters[target.backend]
    assignment = assign(staged, target, recipe, fitted, held, mine, progress, owners=owners)
    schemes = assignment.schemes
    progress("simulate other engines")
    simulated = {d: max(Trial(staged, held or fitted, r).errors(schemes).tolist()) for d, r in rewriters.items()}
    integer = {s.name: mine(s, _integer(schemes.get(s.name, {}))) for s in staged.stages}
    precise, said = _with_halves(staged, integer, schemes, recipe, fitted, progress)
    errors = [_error(staged, precise, x) if x else 0.0 for x in (fitted, held)]
    limit = recipe.max_action_error
    if limit is not None and errors[0] > limit:
        raise BudgetError("the precisions do not fit the budgets", where=f'policy "{policy.name}", recipe [precision]',
                          why=f"fp16 adds to what was chosen: error {limit:g} asked, {errors[0]:.4g} reachable",
                          fix='allow a larger max_action_error, or base = "fp32"', reachable={"max_action_error": errors[0]})
    return Precise(marked(precise, assignment), assignment, *errors, simulated, (*said, *quantise.said(schemes)))


def _with_halves(staged: Staged, integer: Mapping[str, StageGraph], schemes: Schemes, recipe: PrecisionRecipe,
                 observations: Sequence[Inputs], progress: Callable[[str], None]) -> tuple[Staged, tuple[str, ...]]:
    """(stages whose integer layers are lowered, with what is to be fp16 in fp16; what was pinned and why). Where the recipe
    sets no budget, fp16 may move the action by as much as the integer layers themselves do: a last bit of fp16 turns many
    numbers to their next step, and no pin but FP32 everywhere would turn them back (as `HalfLimits.quantised` for stages)."""
    lowered = replace(staged, stages=tuple(integer[s.name] for s in staged.stages))
    if recipe.base == "fp16":
        ruled = Pin("recipe", "a rule says fp32")
        keep = {s: {n: ruled for n, scheme in of.items() if scheme == "fp32"} for s, of in schemes.items()}
        action = recipe.max_action_error or max(HalfLimits.action, _error(staged, lowered, observations))
        half = halve(lowered, observations, HalfLimits(action=action), progress, keep)
        return half.staged, tuple(half.lines())
    halves = {s: {n for n, scheme in of.items() if scheme == "fp16"} for s, of in schemes.items()}
    stages = tuple(to_half(s, {n.name for n in s.graph.nodes} - halves[s.name]) if halves.get(s.name) else s
                   for s in lowered.stages)
    return replace(lowered, stages=stages), ()


def _error(staged: Staged, precise: Staged, observations: Sequence[Inputs]) -> float:
    action, a, b = staged.program.action_in, StageRunner(precise), StageRunner(staged)
    return action_error([action(a.run(x)) for x in observations], [action(b.run(x)) for x in observations])


Quantised = tuple[StageGraph, dict[str, QuantisedLayer], Ranges]


def run_calls(stage: StageGraph, calls: Sequence[Call]) -> list[torch.Tensor]:
    """Per output, what it is over all calls."""
    module = stage_module(stage)
    with torch.no_grad():
        results = [module(*args) for args in calls]
    return [torch.stack(values).flatten() for values in zip(*results, strict=True)]


class _Quantiser:
    """(stage, {node: "int8" | "int4"}) -> the stage, rescaled, its quantised layers, and the ranges between
    convolutions. The same arguments are worked on once, of twins too."""

    def __init__(self, firsts: Mapping[str, StageGraph], owners: Mapping[str, str], calls: Mapping[str, Sequence[Call]],
                 method: Method, progress: Callable[[str], None]):
        self.firsts, self.owners, self.calls, self.method, self.progress = firsts, owners, calls, method, progress
        self.samples: dict[str, StageSamples] = {}
        self.smoothing: dict[str, Method | None] = {}
        self.done: dict[tuple, Quantised] = {}
        self.notes: dict[tuple, tuple[str, ...]] = {}

    def __call__(self, stage: StageGraph, schemes: Mapping[str, str]) -> Quantised:
        first = self.firsts[self.owners[stage.name]]
        key = first.name, tuple(sorted(schemes.items()))
        if key not in self.done:
            if first.name not in self.samples:
                self.samples[first.name] = collect(first, self.calls[first.name])
                self.smoothing[first.name] = self._best_smoothing(first)
            self.done[key], self.notes[key] = self._quantised(first, schemes, self.smoothing[first.name])
        written, layers, ranges = self.done[key]
        return as_twin(written, stage), layers, ranges

    def _quantised(self, stage: StageGraph, schemes: Mapping[str, str], smoothing: Method | None) \
            -> tuple[Quantised, tuple[str, ...]]:
        samples, notes = self.samples[stage.name], ()
        if smoothing is not None:
            migrated = migrate(stage, samples, schemes, smoothing, self.progress)
            notes = tuple(f"{stage.name}: {line}" for line in migrated.notes)
            if migrated.stage is not stage:
                stage, samples = migrated.stage, collect(migrated.stage, self.calls[stage.name], layers=schemes)
        layers = quantise_stage(stage, samples, schemes, self.method, self.progress)
        return (stage, layers, self._ranges(stage, layers)), notes

    def _best_smoothing(self, stage: StageGraph) -> Method | None:
        """None, the recipe's alpha, or the best alpha per value: what moves the stage's outputs least when all its layers
        are in int8. Smoothing makes the rounding of activations smaller and that of weights larger, and which of them
        counts is not seen in one layer."""
        schemes = {x.node: "int8" for x in layers_of(stage) if x.kind == "linear"}
        if not self.method.alpha or not schemes:
            return None
        want = run_calls(stage, self.calls[stage.name])
        errors = {}
        for smoothing in (None, self.method, replace(self.method, alpha=None)):
            written, layers, ranges = self._quantised(stage, schemes, smoothing)[0]
            got = run_calls(lower(written, layers, "onnxruntime", ranges), self.calls[stage.name])
            errors[smoothing] = max(compare(a.numpy(), b.numpy()).rel_l2 for a, b in zip(got, want, strict=True))
        return min(errors, key=errors.__getitem__)

    def said(self, schemes: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Notes on these stages alone."""
        keys = dict.fromkeys((self.owners[s], tuple(sorted(_integer(of).items()))) for s, of in schemes.items())
        return tuple(line for key in keys for line in self.notes.get(key, ()))

    def _ranges(self, stage: StageGraph, layers: Mapping[str, QuantisedLayer]) -> Ranges:
        """Of what quantised convolutions give, over all calls, clipped as the calibrator says."""
        kinds = {n.name: KINDS[n.target][0] for n in stage.graph.nodes if n.target in KINDS}
        between = values_to_range(stage, frozenset(n for n in layers if kinds[n] == "conv"))
        seen = {n: Histogram() for n in between}
        if not seen:
            return {}
        watch = _Watch(stage_module(stage), seen)
        with torch.no_grad():
            for args in self.calls[stage.name]:
                watch.run(*args)
        peaks = {n: h.threshold(self.method.calibrator, self.method.percentile) for n, h in seen.items()}
        return {n: (max(h.low, -peaks[n]), min(h.high, peaks[n])) for n, h in seen.items()}


def _integer(schemes: Mapping[str, str]) -> dict[str, str]:
    return {n: s for n, s in schemes.items() if s in LIMITS}


def _rewriter(quantise: _Quantiser, dialect: str) -> Rewrite:
    """(stage, {node: scheme}) -> the stage as that engine computes it."""

    def rewrite(stage: StageGraph, schemes: Mapping[str, str]) -> StageGraph:
        half = frozenset(n for n, s in schemes.items() if s == "fp16")
        integer = _integer(schemes)
        if integer:
            written, layers, ranges = quantise(stage, integer)
            stage = lower(written, layers, dialect, ranges)
        return in_half(stage, half) if half else stage

    return rewrite


class _Watch(Interpreter):
    def __init__(self, module, seen: Mapping[str, Histogram]):
        super().__init__(module)
        self.seen = seen

    def run_node(self, n):
        result = super().run_node(n)
        if n.name in self.seen:
            self.seen[n.name].add(result)
        return result
