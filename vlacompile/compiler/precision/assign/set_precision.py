"""Stages in fp32 -> stages in the precision that the recipe asks for, as the target's engine computes them, and the
action error that this causes.

Owns the order: calibration (calibrate.py), rotation and smoothing (choose_rotations.py, quantiser.py), quantisation
(quantise.py), insertion of quantised ops (insert_quantised_ops.py), choice (assign.py). Must not know how any of them
works.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from vlacompile.compiler.precision.assign.assign import assign
from vlacompile.compiler.precision.assign.choices_made import Changed, Choices, changed, makes_choices
from vlacompile.compiler.precision.assign.choose_rotations import choose_rotations
from vlacompile.compiler.precision.assign.chunk_jerk import times_as_jerky
from vlacompile.compiler.precision.assign.decision import Assignment, marked
from vlacompile.compiler.precision.assign.measured_by import observed
from vlacompile.compiler.precision.assign.outcome import Carried, carried_out, facts, require_carried_out, static_layers
from vlacompile.compiler.precision.assign.quantiser import Quantiser, integer, rewriter
from vlacompile.compiler.precision.assign.sensitivity import Inputs, Schemes, Trial
from vlacompile.compiler.precision.fp16.convert import Fp16Limits, Fp16Policy, convert_to_fp16
from vlacompile.compiler.precision.fp16.keep_fp32 import KeptFp32
from vlacompile.compiler.precision.fp16.rewrite import to_fp16
from vlacompile.compiler.precision.quantise.calibrate import pooled, record_calls
from vlacompile.compiler.precision.quantise.insert_quantised_ops import (
    DIALECTS,
    is_static,
)
from vlacompile.compiler.precision.quantise.layers import layers_of
from vlacompile.compiler.precision.quantise.quantise import Method
from vlacompile.compiler.staging.action_scale import ActionScale
from vlacompile.compiler.staging.identical_stages import with_one_graph
from vlacompile.compiler.staging.run_stages import StageRunner
from vlacompile.compiler.staging.stages import Staged, StageGraph
from vlacompile.hardware.target import Target
from vlacompile.policy.policy import Policy
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlart.bundle.precision_record import carried_lines, error_lines, rotation_lines
from vlart.errors import BudgetError, PrecisionError


@dataclass(frozen=True)
class Precise:
    """staged: as the target's engine computes it. error, held_out: action errors on the calibration observations and on
    held-out ones. simulated: {dialect: action error of the same choice on other engines, on the held-out observations
    if there are any; quantised layers only}. facts: see outcome.facts. notes: what stays fp32, what was rescaled."""

    staged: Staged
    assignment: Assignment
    error: float
    held_out: float
    simulated: Mapping[str, float]
    facts: Mapping
    notes: tuple[str, ...]

    @property
    def report(self) -> tuple[str, ...]:
        lines = [*carried_lines(self.facts), *rotation_lines(self.facts), *error_lines(self.facts),
                 *self.assignment.notes, *self.notes]
        return tuple(f"precision: {line}" for line in lines)


def set_precision(staged: Staged, policy: Policy, recipe: PrecisionRecipe, target: Target,
                  progress: Callable[[str], None]) -> Precise:
    """Raises CalibrationError, ConfigError, BudgetError or PrecisionError."""
    progress("read calibration observations")
    seen = observed(staged, policy, recipe)
    staged, owners = with_one_graph(staged)
    firsts = {s.name: s for s in staged.stages if owners[s.name] == s.name}
    calls = pooled(record_calls(staged, seen.fitted, at_least=2 if seen.recorded else 1), owners)
    at_edges = pooled(record_calls(staged, seen.edges, at_least=0), owners)
    method = Method(recipe.calibrator, recipe.percentile, recipe.correct_bias, recipe.int4_method, recipe.block,
                    recipe.smooth, seen.margin)
    quantise = Quantiser(firsts, owners, calls, at_edges, method, progress, recipe.rotate_seed)
    turned = choose_rotations(staged, quantise, recipe, target, seen.deciding, progress) if recipe.rotates else ()
    rewriters = {d: rewriter(quantise, d) for d in DIALECTS}
    mine = rewriters[target.backend]
    measured = bool(seen.recorded) or not _may_be_static(recipe, staged, target.backend)
    assignment = assign(staged, target, recipe, seen.deciding, seen.held, mine, progress, owners=owners,
                        measured=measured)
    layers = [x for s in staged.stages for x in layers_of(s)]
    carried = carried_out(assignment, layers, recipe, measured)
    require_carried_out(carried, assignment, recipe, policy.name, bool(seen.recorded))
    plain, schemes = _Actions(staged), assignment.schemes
    scale = ActionScale.of(plain(seen.deciding))
    whole = {s.name: mine(s, integer(schemes.get(s.name, {}))) for s in staged.stages}
    precise, said, in_fp16_too, kept = _with_fp16(staged, whole, schemes, recipe, seen.deciding, plain, scale,
                                                  progress)
    progress("simulate other engines")
    done = {s: {n: "fp32" if scheme == "fp16" and n in kept.get(s, ()) else scheme for n, scheme in of.items()}
            for s, of in schemes.items()}
    simulated = {d: max(Trial(staged, seen.held or seen.fitted, r, scale).errors(done).tolist())
                 for d, r in rewriters.items()}
    require_carried_out(in_fp16_too, assignment, recipe, policy.name, bool(seen.recorded))
    actions = _Actions(precise)
    errors = [_error(plain, actions, x, scale) if x else None for x in (seen.deciding, seen.held)]
    _require_finite(policy, {target.backend: simulated[target.backend], "held-out": errors[1] or 0.0})
    apart = tuple(f"rendered for {d} and simulated: actions that are not finite" for d, e in simulated.items()
                  if not math.isfinite(e))
    simulated = {d: e for d, e in simulated.items() if math.isfinite(e)}
    jerks = [_jerk(plain, actions, x, scale) if x and assignment.jerk is not None else None
             for x in (seen.deciding, seen.held)]
    for key, words, limit, reached in (("max_action_error", "error", recipe.max_action_error, errors[0]),
                                       ("max_jerk", "times as jerky", recipe.max_jerk, jerks[0])):
        if limit is not None and reached is not None and reached > limit:
            raise BudgetError("the precisions do not fit the budgets",
                              where=f'policy "{policy.name}", recipe [precision]',
                              why=f"fp16 adds to the chosen {words}: {limit:g} asked, {reached:.4g} reachable",
                              fix=f'allow a larger {key}, or base = "fp32"', reachable={key: reached})
    others = [_changed(plain, actions, x) for x in (seen.deciding, seen.held)]
    told = facts((*in_fp16_too, *carried), recorded=seen.recorded,
                 generated=0 if seen.recorded else len(seen.fitted) + len(seen.held),
                 static={d: static_layers(assignment, layers, d) for d in DIALECTS}, dialect=target.backend,
                 errors=tuple(errors), spread=scale.spread.tolist(), simulated=simulated,
                 budget=recipe.max_action_error, jerks=tuple(jerks), max_jerk=recipe.max_jerk,
                 choices=tuple(others), rotations=turned)
    return Precise(marked(precise, assignment, not told["uncalibrated"]), assignment, errors[0],
                   errors[1] or 0.0, simulated, told,
                   (*seen.notes, *said, *(line for t in turned for line in t.rejected), *quantise.said(schemes),
                    *apart))


def _require_finite(policy: Policy, errors: Mapping[str, float]) -> None:
    if not all(map(math.isfinite, errors.values())):
        raise PrecisionError(
            "in this precision some actions are not finite", where=f'policy "{policy.name}", recipe [precision]',
            why="on held-out calibration observations a value leaves the range of the precision",
            fix="give more calibration observations, so that such a value is seen when precisions are chosen, or "
                "choose another recipe")


def _may_be_static(recipe: PrecisionRecipe, staged: Staged, dialect: str) -> bool:
    """Whether any layer may be quantised with static ranges."""
    asked = {recipe.layers, *(r.scheme for r in recipe.rule)}
    scheme = "int8" if "int8" in asked or (AUTO in asked and "int8" in recipe.schemes) else ""
    return any(is_static(x.kind, scheme, dialect) for s in staged.stages for x in layers_of(s))


def _with_fp16(staged: Staged, quantised: Mapping[str, StageGraph], schemes: Schemes, recipe: PrecisionRecipe,
               observations: Sequence[Inputs], plain: _Actions, scale: ActionScale, progress: Callable[[str], None]) \
        -> tuple[Staged, tuple[str, ...], tuple[Carried, ...], Mapping[str, Container[str]]]:
    """(stages with integer layers inserted and all other layers that should be fp16 converted; what stays FP32 and why;
    how much was converted; {stage: nodes that stay FP32 though fp16 was asked}). If the recipe sets no budget, fp16 may
    cause as much action error as the integer layers: an fp16 rounding moves many numbers to the next quantisation step,
    which only FP32 everywhere would avoid (as `Fp16Limits.quantised` for stages)."""
    lowered = replace(staged, stages=tuple(quantised[s.name] for s in staged.stages))
    if recipe.base == "fp16":
        ruled = KeptFp32("recipe", "a rule says fp32")
        keep = {s: {n: ruled for n, scheme in of.items() if scheme == "fp32"} for s, of in schemes.items()}
        action = recipe.max_action_error or max(Fp16Limits.action,
                                                 _error(plain, _Actions(lowered), observations, scale))
        made = convert_to_fp16(lowered, observations, Fp16Limits(action=action), progress, keep)
        return made.staged, tuple(made.lines()), (_fp16_carried_out(made),), {s.name: s.kept_fp32 for s in made.stages}
    chosen = {s: {n for n, scheme in of.items() if scheme == "fp16"} for s, of in schemes.items()}
    stages = tuple(to_fp16(s, {n.name for n in s.graph.nodes} - chosen[s.name]) if chosen.get(s.name) else s
                   for s in lowered.stages)
    return replace(lowered, stages=stages), (), (), {}


def _fp16_carried_out(made: Fp16Policy) -> Carried:
    """Bytes saved: constants stored in both dtypes save none."""
    before, after = sum(s.before for s in made.stages), sum(s.made.weights for s in made.stages)
    kinds = Counter(p.kind for s in made.stages for p in s.kept_fp32.values())
    return Carried("fp16", "operations", sum(s.made.nodes for s in made.stages), sum(s.of for s in made.stages),
                   max(0, 2 * (before - after)), before,
                   "left in fp32: " + ", ".join(f"{n} by {kind}" for kind, n in kinds.most_common()))


class _Actions:
    """What stages make of observations, and what they choose on the way; each of them is run once."""

    def __init__(self, staged: Staged):
        self.runner, self.found, self.chooses = StageRunner(staged), {}, makes_choices(staged)

    def __call__(self, observations: Sequence[Inputs]) -> list[torch.Tensor]:
        return [self._of(x)[1] for x in observations]

    def choices(self, observations: Sequence[Inputs]) -> list[Choices]:
        return [self._of(x)[2] for x in observations]

    def _of(self, x: Inputs) -> tuple[Inputs, torch.Tensor, Choices]:
        if id(x) not in self.found:
            made = Choices()
            values = self.runner.run(x, observe=made.see if self.chooses else None)
            self.found[id(x)] = x, self.runner.staged.program.action_in(values), made
        return self.found[id(x)]


def _changed(plain: _Actions, precise: _Actions, observations: Sequence[Inputs]) -> Changed | None:
    """None: nothing is chosen, or there are no observations."""
    if not plain.chooses or not observations:
        return None
    return changed(precise.choices(observations), plain.choices(observations))


def _error(plain: _Actions, precise: _Actions, observations: Sequence[Inputs], scale: ActionScale) -> float:
    """scale: that of the observations that decide, for any others too: of a few, a dimension may hardly move."""
    return float(scale.errors(precise(observations), plain(observations)).max())


def _jerk(plain: _Actions, precise: _Actions, observations: Sequence[Inputs], scale: ActionScale) -> float | None:
    """How many times as jerky as in fp32 the chunks are, of the worst dimension; None: they have no jerk."""
    found = times_as_jerky(precise(observations), plain(observations), scale.spread)
    return None if found is None else float(found.max())
