"""Assigns precisions to layers: measured errors and costs, an integer program, and trial runs of the chosen mix.

Errors of separate layers are assumed to add in squares (they round different numbers). The deviation from this is
measured, not assumed: the chosen mix is run, and an internal budget is adjusted until the measured error is within the
recipe's budget and uses almost all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from vlacompile.compiler.precision.assign.candidates import LIFTED, Choice, admits, choices
from vlacompile.compiler.precision.assign.chunk_jerk import Measured, require_steps
from vlacompile.compiler.precision.assign.decision import Assignment, Decision, Totals
from vlacompile.compiler.precision.assign.knapsack import Limits, Option, Solution, solve, stored_once
from vlacompile.compiler.precision.assign.layer_costs import Cost, cost, runs_per_replan
from vlacompile.compiler.precision.assign.outcome import missing
from vlacompile.compiler.precision.assign.sensitivity import Inputs, Rewrite, Schemes, Trial
from vlacompile.compiler.precision.quantise.layers import Layer
from vlacompile.compiler.staging.stages import Staged
from vlacompile.hardware.target import Target
from vlacompile.recipe.precision_recipe import AUTO, PrecisionRecipe
from vlart.errors import BudgetError, ConfigError

ROUNDS = 8  # of solving and measuring
ENOUGH = 0.9  # share of the budget from which on searching further gains little
STEP = 0.97  # the next round aims at this share of the extrapolated limit


@dataclass(frozen=True)
class Unit:
    """Layers that are decided together: those of a block or a whole stage, and of stages identical to it. schemes:
    {option: scheme of each layer}; with a single option there is nothing to choose."""

    choices: tuple[Choice, ...]
    schemes: dict[str, tuple[str, ...]]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(c.layer for c in self.choices)

    def of(self, option: str) -> Schemes:
        found: dict[str, dict[str, str]] = {}
        for layer, scheme in zip(self.layers, self.schemes[option], strict=True):
            found.setdefault(layer.stage, {})[layer.node] = scheme
        return found


def split(observations: Sequence[Inputs]) -> tuple[list[Inputs], list[Inputs]]:
    """(observations that decide, held-out ones): every fourth is held out if there are at least four."""
    if len(observations) < 4:
        return list(observations), []
    return [x for i, x in enumerate(observations) if i % 4 != 3], list(observations[3::4])


def assign(staged: Staged, target: Target, recipe: PrecisionRecipe, observations: Sequence[Inputs],
           held_out: Sequence[Inputs], rewrite: Rewrite, progress: Callable[[str], None] = lambda phase: None, *,
           owners: Mapping[str, str] | None = None, measured: bool = True) -> Assignment:
    """The cheapest mix of schemes whose action error is within the recipe's budgets. If a scheme that the recipe names
    is not used at all, the search is repeated layer by layer; then including small layers; and if there are no others,
    including those that touch actions.

    measured: whether errors on these observations count as measurements; they are used in any case. rewrite: (stage,
    {node: scheme}) -> the stage computed in that way, runnable in PyTorch. owners: {stage: the stage whose integer
    weights it shares, and with which it is decided} (compiler/staging/identical_stages.py); None: all stages share
    weights that they store identically. Raises ConfigError (rules, a target without rates) and BudgetError.
    """
    found = None
    for lifted in LIFTED:
        for apart in (False, True):
            assigner = _Assigner(staged, target, recipe, observations, held_out, rewrite, progress, owners, measured,
                                 lifted, apart)
            if found is not None and apart and not assigner.divided:
                continue
            found = assigner.run()
            if recipe.optional or not missing(found, recipe):
                return found
        if lifted and assigner.offers(missing(found, recipe)):  # it could be chosen, but costs too much
            return found
    return found


class _Assigner:
    def __init__(self, staged, target, recipe, observations, held_out, rewrite, progress, owners, measured=True,
                 lifted=0, apart=False):
        self.measured, self.apart = measured, apart
        self.staged, self.target, self.recipe, self.progress, self.owners = staged, target, recipe, progress, owners
        self.rewrite, self.held_out = rewrite, held_out
        self.stages = {s.name: s for s in staged.stages}
        self.runs = {s.name: runs_per_replan(s, staged.program.sources) for s in staged.stages}
        self.timed = recipe.minimise == "latency" or recipe.max_latency_ms is not None
        self.sized = recipe.minimise == "bytes" or recipe.max_weight_mb is not None
        self.costs: dict[tuple[str, str, str], Cost] = {}
        self.units = self._units(choices(staged, recipe, target.backend, lifted))
        self.trial = Trial(staged, observations, rewrite)
        self.own: dict[tuple[int, str], torch.Tensor] = {}  # (unit, option): f64[D], its error alone
        self.notes: list[str] = []

    def run(self) -> Assignment:
        start = Solution(tuple(next(iter(u.schemes)) for u in self.units), 0.0)  # base where there is a choice
        if self.recipe.max_jerk is not None:
            require_steps(self.staged.program.name, self.trial.want)
        fixed = self._measure(start)
        options = self._options()
        if all(len(o) == 1 for o in options):
            self._check_fixed(start, fixed, options)
            return self._result(start, fixed, options)
        return self._result(*self._search(options, start, fixed), options)

    # the options

    @property
    def divided(self) -> bool:
        """Whether a choice is left that deciding layer by layer could change."""
        return any(len(u.schemes) > 1 for u in self.units)

    def offers(self, schemes: Iterable[str]) -> bool:
        """Whether each of these schemes was an option of some unit."""
        return all(any(s in each for u in self.units for each in u.schemes.values()) for s in schemes)

    def _units(self, found: Iterable[Choice]) -> tuple[Unit, ...]:
        grouped: dict[tuple, list[Choice]] = {}
        for c in found:
            owner = (self.owners or {}).get(c.layer.stage, c.layer.stage)
            path = (c.layer.group.removeprefix(f"{c.layer.stage}/") if self.recipe.decide == "block"
                    or c.scheme != AUTO else "")
            # apart: layers that rules leave to the search are decided individually
            path = c.layer.weight if self.apart and c.scheme == AUTO else path
            key = (owner, path, c.scheme, c.rule if c.scheme == AUTO else c.decided, c.why)
            grouped.setdefault(key, []).append(c)
        return tuple(Unit(tuple(cs), self._schemes(scheme, cs)) for (_, _, scheme, _, _), cs in grouped.items())

    def _schemes(self, scheme: str, found: list[Choice]) -> dict[str, tuple[str, ...]]:
        base = self.recipe.base
        if scheme != AUTO:
            return {scheme: (scheme,) * len(found)}
        options = {base: (base,) * len(found)}
        for other in self.recipe.schemes:
            each = tuple(other if self._gains(c.layer, other) else base for c in found)
            if each not in options.values():
                options[other] = each
        return options

    def _gains(self, layer: Layer, scheme: str) -> bool:
        if scheme == self.recipe.base or scheme not in admits(layer, self.target.backend):
            return False
        new, old = self._cost(layer, scheme), self._cost(layer, self.recipe.base)
        if self.timed and old.time_us is None:
            raise ConfigError(f"times are unknown in {self.recipe.base}", where=f'target "{self.target.name}"',
                              why=f"[rates.{self.recipe.base}] has nothing for a {layer.kind}",
                              fix='add the rates, or minimise = "bytes" without max_latency_ms')
        if self.timed and new.time_us is None:
            return False
        return (self.timed and new.time_us < old.time_us) or (self.sized and new.bytes < old.bytes)

    def _cost(self, layer: Layer, scheme: str) -> Cost:
        key = (layer.stage, layer.node, scheme)
        if key not in self.costs:
            self.costs[key] = cost(self.stages[layer.stage], layer, scheme, self.target, self.recipe.block)
        return self.costs[key]

    def _option(self, unit: Unit, name: str, squared: tuple[float, ...]) -> Option:
        pairs = list(zip(unit.layers, unit.schemes[name], strict=True))
        costs = [self._cost(x, s) for x, s in pairs]
        stores = {self._stored_as(x, s): c.bytes for (x, s), c in zip(pairs, costs, strict=True)}
        time = sum(self.runs[x.stage] * (c.time_us or 0.0) for (x, _), c in zip(pairs, costs, strict=True))
        return Option(name, squared, time, stores)

    def _stored_as(self, layer: Layer, scheme: str) -> str:
        """Key of its stored weight; int8 and int4 weights depend on the activations of the stage."""
        own = self.owners is not None and scheme in ("int8", "int4")
        return f"{self.owners[layer.stage] if own else ''}/{layer.weight}/{scheme}"

    def _options(self) -> tuple[tuple[Option, ...], ...]:
        """Per unit its options, with the error of each one alone; the first is where the search starts, with error
        0."""
        zero = (0.0,) * len(self.trial.scale.spread)
        found = []
        for i, unit in enumerate(self.units):
            options = []
            for n, name in enumerate(unit.schemes):
                if n > 0:
                    self.progress(f"try {self._words(unit)} in {name}")
                    self.own[i, name] = self.trial.errors(unit.of(name))
                squared = zero if n == 0 else tuple((self.own[i, name] ** 2).tolist())
                options.append(self._option(unit, name, squared))
            found.append(tuple(options))
        return tuple(found)

    # the search

    def _limits(self, budget: float, fixed: Measured) -> Limits:
        r = self.recipe
        return Limits(tuple((budget**2 - fixed.error**2).clamp(min=0.0).tolist()),
                      None if r.max_weight_mb is None else r.max_weight_mb * 1e6,
                      None if r.max_latency_ms is None else r.max_latency_ms * 1e3)

    def _search(self, options, start: Solution, fixed: Measured) -> tuple[Solution, Measured]:
        """Solves, runs, and moves the internal budget between the largest one accepted and the smallest one
        exceeded."""
        if self._share(fixed) > 1:
            self._fail(options, fixed, "layers fixed by rules and defaults cause " + (
                f"an error of {fixed.worst:.4g}" if fixed.worst > self.recipe.max_action_error
                else f"chunks {fixed.jerkiest:.4g} times as jerky as in fp32"))
        best, low, high, aim = None, 0.0, None, self.recipe.max_action_error
        seen: dict[tuple[str, ...], Measured] = {start.options: fixed}
        for _ in range(ROUNDS):
            found = solve(options, self._limits(aim, fixed), self.recipe.minimise)
            if found is None:
                self._note(f"internal budget {aim:.4g}: no mix is within the limits")
                low, share = aim, None
            else:
                got = seen[found.options] = seen.get(found.options) or self._measure(found)
                share = self._share(got)
                self._note(f"internal budget {aim:.4g}: {self.recipe.minimise} {self._amount(found)}, "
                           f"{self._told_of(got)}")
                if share <= 1 and (best is None or found.value < best[0].value):
                    best = found, got
                if share <= 1:
                    low = aim
                    if share >= ENOUGH or self._cannot_improve(options, found):
                        break
                else:
                    high = aim
            aim = _next(low, high, aim, None if share is None else 1 / max(share, 1e-9))
            if high is not None and high - low < 0.02 * high:
                break
        if best is None:
            best = self._calmest(options, fixed)
        if best is None:
            self._fail(options, fixed, "no mix of precisions that was tried stays within all budgets")
        return best

    def _share(self, got: Measured) -> float:
        """How much is used of what actions may lose: of the error, or of the jerk beyond fp32's, which adds to it in
        squares as errors do. Above 1: too much."""
        r = self.recipe
        shares = [0.0 if r.max_action_error is None else got.worst / r.max_action_error]
        if r.max_jerk is not None:
            shares.append(math.sqrt(max(0.0, got.jerkiest**2 - 1) / (r.max_jerk**2 - 1)))
        return max(shares)

    def _calmest(self, options, fixed: Measured) -> tuple[Solution, Measured] | None:
        """The mix with the least error within the other budgets, if that is within the budget of actions too."""
        found = solve(options, replace(self._limits(1.0, fixed), squared=(1.0,) * len(fixed.error)), "error")
        if found is None:
            return None
        got = self._measure(found)
        self._note(f"the least error within the other budgets: {self._told_of(got)}")
        return (found, got) if self._share(got) <= 1 else None

    def _cannot_improve(self, options, found: Solution) -> bool:
        """Whether an unlimited error would not save anything either."""
        nothing = Measured(torch.zeros_like(self.trial.scale.spread), None)
        free = solve(options, self._limits(1e6, nothing), self.recipe.minimise)
        return free is not None and found.value <= free.value * (1 + 1e-9)

    def _told_of(self, got: Measured) -> str:
        r = self.recipe
        words = f"measured error {got.worst:.4g}" if self.measured else "error not measured"
        words += f" of {r.max_action_error:g}" + (", too much" if got.worst > r.max_action_error else "")
        if r.max_jerk is not None:
            words += f", {got.jerkiest:.4g} times as jerky as fp32, {r.max_jerk:g} allowed"
            words += ", too jerky" if got.jerkiest > r.max_jerk else ""
        return words

    def _amount(self, found: Solution) -> str:
        return f"{found.value / 1e3:.3f} ms" if self.recipe.minimise == "latency" else f"{found.value / 1e6:.3f} MB"

    def _schemes_of(self, found: Solution) -> dict[str, dict[str, str]]:
        schemes: dict[str, dict[str, str]] = {}
        for unit, option in zip(self.units, found.options, strict=True):
            for stage, of in unit.of(option).items():
                schemes.setdefault(stage, {}).update(of)
        return schemes

    def _measure(self, found: Solution) -> Measured:
        return self.trial.measure(self._schemes_of(found))

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress(text)

    # budgets that cannot be met

    def _check_fixed(self, start: Solution, fixed: Measured, options) -> None:
        chosen = [o[0] for o in options]
        size, time = sum(stored_once(chosen).values()), sum(o.time_us for o in chosen)
        r = self.recipe
        over = [r.max_action_error is not None and fixed.worst > r.max_action_error,
                r.max_jerk is not None and fixed.jerkiest > r.max_jerk,
                r.max_weight_mb is not None and size > r.max_weight_mb * 1e6,
                r.max_latency_ms is not None and time > r.max_latency_ms * 1e3]
        if any(over):
            self._fail(options, fixed, "every precision is fixed by the recipe, and together they exceed a budget")

    def _fail(self, options, fixed: Measured, why: str) -> None:
        """Reports for each budget the value that would be reachable if the others hold."""
        r = self.recipe
        budget = float("inf") if r.max_action_error is None else r.max_action_error
        limits = self._limits(min(budget, 1e6), fixed)
        needs: dict[str, float | None] = {}
        one = Limits((1.0,) * len(fixed.error), limits.bytes, limits.time_us)
        calm = solve(options, one, "error")
        least = None if calm is None else self._measure(calm)
        if r.max_action_error is not None:
            needs["max_action_error"] = None if least is None else least.worst
        if r.max_jerk is not None:
            needs["max_jerk"] = None if least is None else least.jerkiest
        impossible = fixed.worst > budget
        if r.max_weight_mb is not None:
            small = None if impossible else solve(options, Limits(limits.squared, None, limits.time_us), "bytes")
            needs["max_weight_mb"] = None if small is None else small.value / 1e6
        if r.max_latency_ms is not None:
            fast = None if impossible else solve(options, Limits(limits.squared, limits.bytes, None), "latency")
            needs["max_latency_ms"] = None if fast is None else fast.value / 1e3
        told = [_told(key, needs[key], getattr(r, key)) for key in needs]
        gives = [f"{key} = {_up(need)}" for key, need in needs.items() if need is not None and need > getattr(r, key)]
        raise BudgetError(
            "the precisions do not fit the budgets", where=f'policy "{self.staged.program.name}", recipe [precision]',
            why=f"{why}; {'; '.join(told)}", reachable=needs,
            fix=f"allow {' or '.join(gives)}" if gives else "raise more than one of them, or loosen a rule")

    # the result

    def _result(self, found: Solution, got: Measured, options) -> Assignment:
        chosen = [next(o for o in unit if o.name == n) for unit, n in zip(options, found.options, strict=True)]
        plain: dict[str, int] = {}
        plain_time: list[float | None] = []
        stored: set[str] = set()
        decisions: list[Decision] = []
        times: list[float | None] = []
        for i, (unit, option) in enumerate(zip(self.units, chosen, strict=True)):
            ruled = list(zip(unit.choices, unit.schemes[option.name], strict=True))
            for group, scheme in dict.fromkeys((c.layer.group, s) for c, s in ruled):
                picked = [c for c, s in ruled if (c.layer.group, s) == (group, scheme)]
                own = {self._stored_as(c.layer, scheme): self._cost(c.layer, scheme).bytes for c in picked}
                before = {f"/{c.layer.weight}/fp32": self._cost(c.layer, "fp32").bytes for c in picked}
                size = sum(b for n, b in own.items() if n not in stored)
                was = sum(b for n, b in before.items() if n not in plain)
                time = _sum(self._cost(c.layer, scheme).time_us for c in picked)
                fp32 = _sum(self._cost(c.layer, "fp32").time_us for c in picked)
                auto = len(unit.schemes) > 1 or picked[0].scheme == AUTO
                stage = picked[0].layer.stage
                decisions.append(Decision(
                    stage, group, scheme, "optimiser" if auto else picked[0].decided,
                    tuple(c.layer.node for c in picked), self._error_of(i, option.name, scheme), time, size,
                    None if time is None or fp32 is None else fp32 - time, was - size, picked[0].why))
                stored |= set(own)
                plain |= before
                times.append(None if time is None else self.runs[stage] * time)
                plain_time.append(None if fp32 is None else self.runs[stage] * fp32)
        held = ()
        if self.held_out:
            self.progress("measure on held-out observations")
            held = tuple(Trial(self.staged, self.held_out, self.rewrite, self.trial.scale)
                         .errors(self._schemes_of(found)).tolist())
        return Assignment(tuple(decisions), tuple(got.error.tolist()), held, self.recipe.max_action_error,
                          Totals(_sum(times), sum(d.bytes for d in decisions)),
                          Totals(_sum(plain_time), sum(plain.values())), tuple(self.notes), self._tried(),
                          None if got.jerk is None else got.jerkiest, self.recipe.max_jerk)

    def _tried(self) -> tuple[tuple[str, str, float], ...]:
        return tuple((self._words(self.units[i]), name, float(error.max())) for (i, name), error in self.own.items())

    def _words(self, unit: Unit) -> str:
        first = unit.layers[0]
        if self.apart:
            return f"{first.stage}/{first.weight.replace('__', '.').removesuffix('.weight')}"
        return first.group if self.recipe.decide == "block" else first.stage

    def _error_of(self, unit: int, option: str, scheme: str) -> float | None:
        if scheme == "fp32":
            return 0.0
        own = self.own.get((unit, option))
        return None if own is None else float(own.max())


def _next(low: float, high: float | None, aim: float, factor: float | None) -> float:
    """The next internal budget: extrapolated from the measurements, within the bounds that are known."""
    guess = aim * STEP * min(factor, 8.0) if factor is not None else aim * 2
    if high is None:
        return max(guess, aim * 1.05)
    return guess if low < guess < high else (low + high) / 2


def _sum(times: Iterable[float | None]) -> float | None:
    found = list(times)
    return None if any(t is None for t in found) else sum(found)


def _told(key: str, need: float | None, limit: float) -> str:
    name = {"max_action_error": "error", "max_jerk": "times as jerky", "max_weight_mb": "MB",
            "max_latency_ms": "ms"}[key]
    if need is None:
        return f"{name} {limit:g}: nothing is within the other budgets"
    return f"{name} {limit:g} asked, {need:.4g} reachable" + (f" ({need - limit:+.2g})" if need > limit else "")


def _up(x: float) -> str:
    """Rounded up a little, so that the value is sufficient."""
    return f"{x * 1.001:.4g}"
