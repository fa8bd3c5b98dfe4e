"""The recipe's limits on content and age of the sources -> the plan's guards; tables that they index -> their ranges.

Owns the matching of source names and the ranges taken from calibration observations. The checks at run time belong to
libvlart.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch.fx import Node

from vlacompile.compiler.graph.carried import written_in
from vlacompile.compiler.graph.program import Program
from vlacompile.recipe.recipe import SafetyRecipe, SafetyRule
from vlart.bundle.plan.action import Realtime
from vlart.bundle.plan.guard import Guard, TokenRange
from vlart.bundle.plan.plan import Action, SourceInput, Value, as_f32
from vlart.errors import ConfigError

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
        recorded = () if _is_filled(action, source) else calibration
        guard = _guard(source, values[source.value], wanted, rule, age_us, recorded)
        if guard != Guard(source.value, outside=guard.outside):
            guards.append(guard)
    return tuple(guards)


def _is_filled(action: Action | None, source: SourceInput) -> bool:
    """Whether the runtime fills it from the previous chunk: recorded observations do not have it."""
    consume = action.consume if action else None
    return isinstance(consume, Realtime) and source.value in (consume.previous, consume.weights)


def _guard(source: SourceInput, value: Value, wanted: SafetyRecipe, rule: SafetyRule, age_us: int,
           calibration: tuple[Mapping, ...]) -> Guard:
    """calibration: recorded inputs that have this source; empty: none."""
    name, kind, live = value.name, value.type, source.update in LIVE
    low, high = as_f32(rule.low), as_f32(rule.high)
    if not low and wanted.ranges == "calibration" and calibration and live and kind.dtype == "f32":
        low, high = _seen(name, calibration, wanted.margin)
    last = kind.dims[-1] if kind.dims else 1
    if low and (kind.dtype != "f32" or len(low) not in (1, last)):
        raise ConfigError(f'safety.source "{rule.name}" has {len(low)} bounds', where=f'recipe, source "{name}" {kind}',
                          why="a range is of f32 numbers: one for all of them, or one per element of the last axis",
                          fix=f"give 1 or {last} numbers to low and to high")
    return Guard(source.value, low, high, rule.outside or wanted.outside, rule.not_finite, age_us)


def _age_ms(action: Action | None, source: SourceInput, name: str, wanted: SafetyRecipe, rule: SafetyRule) -> float:
    if _is_filled(action, source):
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


# What hands every number of a tensor on, in some shape.
_MOVES = frozenset({torch.ops.aten.view, torch.ops.aten._unsafe_view, torch.ops.aten.reshape, torch.ops.aten.unsqueeze,
                    torch.ops.aten.squeeze, torch.ops.aten.expand, torch.ops.aten.permute, torch.ops.aten.clone,
                    torch.ops.aten.alias, torch.ops.aten._to_copy, torch.ops.aten.to, torch.ops.aten.lift_fresh_copy})


def token_ranges_of(program: Program, index: Mapping[str, int]) -> tuple[TokenRange, ...]:
    """Of the sources that look up an embedding as they are: PyTorch refuses other rows there, and engines read
    whatever lies behind the table, or count from its end."""
    found: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and not node.meta["val"].is_floating_point():
            rows = _rows(node)
            if rows is not None:
                source = program.inputs[node.name]
                found[source] = min(rows, found.get(source, rows))
    return tuple(TokenRange(index[n], found[n]) for n in written_in(program.sources) if n in found)


def _rows(node: Node) -> int | None:
    """Of the smallest table that these numbers look up; None: they look up none."""
    rows: list[int] = []
    for user in node.users:
        op = getattr(user.target, "overloadpacket", None)
        if op is torch.ops.aten.embedding and user.args[1] is node:
            rows.append(int(user.args[0].meta["val"].shape[0]))
        elif op in _MOVES and user.meta["val"].dtype in (torch.int32, torch.int64):
            rows += [r for r in (_rows(user),) if r is not None]
    return min(rows, default=None)
