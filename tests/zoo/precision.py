"""A system of the zoo in another precision: what the bundle says that it costs, and what it costs on scenes that the
build has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.zoo.built import Built, follow
from vlacompile.phases.phase import Phase
from vlacompile.pipeline import finish
from vlacompile.recipe.precision_recipe import PrecisionRecipe

ALLOWED = 0.05  # error of actions that a build may cause on the observations that decide
MOST = 3 * ALLOWED  # that it may state, those included that did not decide
# Of actions that are choices, with random weights: what one in eight costs that falls on any other.
CHOICES = (2 / 8) ** 0.5
FEW = 2.0  # how much more it may be on other scenes: eight observations do not say it exactly
SIGMAS = 3.0
ATLAS = Path(__file__).parents[2] / "profiles" / "atlas"


@dataclass(frozen=True)
class Stated:
    """What a bundle says of its precision. error: of actions, the larger one of what was measured on observations that
    decided and on others; spread: what it counts in, per dimension. reduced: how many layers are not in fp32.
    other, choices: of all choices between scores, on all these observations, how many fall on another one."""

    error: float
    spread: np.ndarray
    reduced: int
    other: int = 0
    choices: int = 0


def stated(built: Built) -> Stated:
    found = built.bundle.manifest["provenance"]["precision"]
    reduced = max(row["number"] for row in found["carried_out"])
    chosen = [found[key] or {"number": 0, "of": 0} for key in ("choices", "held_out_choices")]
    return Stated(max(found["action_error"], found["held_out_error"]), np.array(found["action_spread"]), reduced,
                  sum(c["number"] for c in chosen), sum(c["of"] for c in chosen))


def schemes_of(name: str) -> tuple[str, ...]:
    """The integer schemes that the atlas names for a system on the boards that it fits; int8 where fp16 is enough."""
    boards = json.loads((ATLAS / f"{name}.json").read_text(encoding="utf-8"))["boards"].values()
    found = {scheme for b in boards if b["fits"] for scheme in b["schemes"].values()} - {"fp16"}
    return tuple(sorted(found | {"int8"}, reverse=True))


def within(error: float, schemes: Sequence[str]) -> PrecisionRecipe:
    """As small as it gets with that action error."""
    return PrecisionRecipe(layers="auto", schemes=tuple(schemes), max_action_error=error, minimise="bytes",
                           decide="stage", smooth=0.5)


def in_precision(built: Built, precision: PrecisionRecipe | None = None) -> Built:
    """The same stages. precision: None: the integer schemes that the system's memory asks for, within ALLOWED."""
    precision = precision or within(ALLOWED, schemes_of(built.policy.name.partition("@")[0]))
    out = built.inputs.out.with_name(f"{len(list(built.inputs.out.parent.iterdir()))}.vlab")
    inputs = replace(built.inputs, recipe=replace(built.inputs.recipe, precision=precision), out=out)
    return replace(built, bundle=dict(finish(inputs, built.verified))[Phase.PUBLISH])


def errors(built: Built, unit: Stated) -> tuple[np.ndarray, np.ndarray]:
    """(root mean square error of every action dimension on other scenes, in the unit of what is stated; which of them
    are choices between two values, as an open or a closed gripper)"""
    pairs = follow(built, steps=8)
    got, want = (np.concatenate([p[i].reshape(-1, p[i].shape[-1]) for p in pairs]) for i in (0, 1))
    binary = np.array([len(np.unique(column)) <= 2 for column in want.T])
    return np.sqrt(np.square(got - want).mean(0)) / unit.spread, binary


def changed_actions(built: Built) -> tuple[int, int]:
    """(how many numbers of actions are other ones on other scenes, of how many that move), where each is a choice."""
    pairs = follow(built, steps=8)
    got, want = (np.concatenate([p[i].reshape(-1, p[i].shape[-1]) for p in pairs]) for i in (0, 1))
    moves = want.std(0) > 0
    other = np.abs(got - want)[:, moves] > 1e-5
    return int(other.sum()), other.size


def most_changed(told: Stated, of: int) -> float:
    """The largest share of `of` other choices that agrees with what is stated: of two samples of one share, the
    difference is below SIGMAS standard deviations. Where none was seen, one might have been."""
    share = max(told.other, 1) / told.choices
    return share + SIGMAS * (share * (1 - share) * (1 / told.choices + 1 / of)) ** 0.5


def check_choices(built: Built, precision: PrecisionRecipe) -> Stated:
    """That on scenes which the build has not seen as many choices fall otherwise as its bundle states, at most."""
    made = in_precision(built, precision)
    told = stated(made)
    assert told.reduced and told.choices
    other, of = changed_actions(made)
    assert other / of <= most_changed(told, of), f"{other} of {of} on new scenes, {told.other} of {told.choices} stated"
    return told


def bound(told: Stated, choices: bool = False) -> float:
    return FEW * max(told.error, CHOICES if choices else ALLOWED)


def check_precision(built: Built, precision: PrecisionRecipe | None = None, choices: bool = False) -> None:
    """That scenes which the build has not seen cost what its bundle states. choices: whether all actions are."""
    made = in_precision(built, precision)
    told = stated(made)
    assert told.reduced and (choices or told.error <= MOST), told
    found, binary = errors(made, told)
    allowed = np.where(binary | choices, bound(told, True), bound(told))
    assert (found <= allowed).all(), f"{found.max():.3g} on new scenes, {told.error:.3g} stated"
