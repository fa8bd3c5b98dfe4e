"""The recipe's limits on content and age of the sources -> the plan's guards.

Owns the matching of source names and the ranges taken from calibration observations. The checks at run time belong to
libvlart.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from vlacompile.bundle.plan.action import Realtime
from vlacompile.bundle.plan.guard import Guard
from vlacompile.bundle.plan.plan import Action, SourceInput, Value, as_f32
from vlacompile.errors import ConfigError
from vlacompile.recipe.recipe import SafetyRecipe, SafetyRule

LIVE = ("observation", "tick")


def guards_of(sources: tuple[SourceInput, ...], values: tuple[Value, ...], action: Action | None, wanted: SafetyRecipe,
              calibration: tuple[Mapping, ...]) -> tuple[Guard, ...]:
    """calibration: recorded inputs, {source: tensor}. Raises ConfigError if a rule matches no source or not its
    shape."""
    names = [values[s.value].name for s in sources]
    for rule in wanted.source:
        if not any(fnmatchcase(n, rule.name) for n in names):
            raise ConfigError(f'safety.source "{rule.name}" matches no source', where="recipe, [[safety.source]]",
                              why=f"there are {', '.join(names)}", fix="name a source, or a pattern of names")
    if wanted.ranges == "calibration" and not calibration:
        raise ConfigError("there are no recordings to take ranges from",
                          where='recipe, [safety] ranges = "calibration"',
                          why="the policy has no recorded observations",
                          fix="give Policy(calibration=...), or the ranges in [[safety.source]]")
    guards = []
    for source, name in zip(sources, names, strict=True):
        rules = [r for r in wanted.source if fnmatchcase(name, r.name)]
        rule = rules[-1] if rules else SafetyRule(name)
        age_us = round(1000 * _age_ms(action, source, name, wanted, rule))
        guard = _guard(source, values[source.value], wanted, rule, age_us, calibration)
        if guard != Guard(source.value, outside=guard.outside):
            guards.append(guard)
    return tuple(guards)


def _guard(source: SourceInput, value: Value, wanted: SafetyRecipe, rule: SafetyRule, age_us: int,
           calibration: tuple[Mapping, ...]) -> Guard:
    name, kind, live = value.name, value.type, source.update in LIVE
    low, high = as_f32(rule.low), as_f32(rule.high)
    if not low and wanted.ranges == "calibration" and live and kind.dtype == "f32":
        low, high = _seen(name, calibration, wanted.margin)
    last = kind.dims[-1] if kind.dims else 1
    if low and (kind.dtype != "f32" or len(low) not in (1, last)):
        raise ConfigError(f'safety.source "{rule.name}" has {len(low)} bounds', where=f'recipe, source "{name}" {kind}',
                          why="a range is of f32 numbers: one for all of them, or one per element of the last axis",
                          fix=f"give 1 or {last} numbers to low and to high")
    return Guard(source.value, low, high, rule.outside or wanted.outside, rule.not_finite, age_us)


def _age_ms(action: Action | None, source: SourceInput, name: str, wanted: SafetyRecipe, rule: SafetyRule) -> float:
    consume = action.consume if action else None
    if isinstance(consume, Realtime) and source.value in (consume.previous, consume.weights):
        if rule.max_age_ms:
            raise ConfigError(f'safety.source "{name}" has an age', where="recipe, [[safety.source]]",
                              why="the runtime fills it", fix="drop max_age_ms")
        return 0.0
    if rule.max_age_ms is not None:
        return rule.max_age_ms
    return wanted.max_age_ms if source.update in LIVE else 0.0


def _seen(name: str, calibration: tuple[Mapping, ...], margin: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high) per element of the last axis, widened on both sides by `margin` times the range, or times 1 for an
    element that is constant."""
    rows = np.concatenate([np.asarray(o[name].double()).reshape(-1, o[name].shape[-1] if o[name].ndim else 1)
                           for o in calibration])
    low, high = rows.min(axis=0), rows.max(axis=0)
    slack = margin * np.where(high > low, high - low, 1.0)
    return as_f32((low - slack).tolist()), as_f32((high + slack).tolist())
