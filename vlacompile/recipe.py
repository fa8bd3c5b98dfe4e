"""Recipes: what is wanted of a build. `recipes/*.toml` -> frozen dataclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vlacompile.bundle.layout import CONSUMES, LOOP_FORMS, SCHEDULES
from vlacompile.config import load_toml
from vlacompile.errors import ConfigError, nearest


@dataclass(frozen=True)
class StagesRecipe:
    """min_flops: stages below merge into a consumer; None: the target's launch cost decides."""

    min_flops: int | None = None


@dataclass(frozen=True)
class ActionRecipe:
    """execute: actions handed out per replan (h); None: the whole chunk.
    low, high: bounds per action dimension in robot units; empty: only finiteness is checked.
    deadline_ms: time that one step may take; 0: none.
    consume: how successive chunks become actions. "queue": execute h, then replan. "ensemble": replan every
        tick, execute the mean of all predictions of the tick, weighted exp(-decay * i), i = 0 the oldest.
        "realtime": a new chunk replaces the rest of the last one, without the actions popped meanwhile.
    decay: of an ensemble; None: 0.01. delay: ticks that a replan takes, of realtime; execute is then at least
        delay and at most H - delay. schedule ("linear", "exp", "ones", "zeros"), horizon (None: H - execute):
        how the weights of the previous chunk fall after the delay, for policies that read them."""

    execute: int | None = None
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    deadline_ms: float = 0.0
    consume: str = "queue"
    decay: float | None = None
    delay: int | None = None
    schedule: str | None = None
    horizon: int | None = None


@dataclass(frozen=True)
class LoopRecipe:
    """max_action_error: what a denoising loop may lose to a solver with fewer evaluations, in units of each action
    dimension's spread over the calibration observations; 0: it runs as written.
    form: "steps" (one engine run per iteration), "fused" (all in one engine), or "auto".
    observations: how many are generated for calibration where the policy brings none."""

    max_action_error: float = 0.0
    form: str = "auto"
    observations: int = 8


@dataclass(frozen=True)
class VerifyRecipe:
    """frames: golden frames recorded when building, at least 4 (every source changes once)."""

    frames: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    name: str
    description: str
    stages: StagesRecipe = field(default_factory=StagesRecipe)
    action: ActionRecipe = field(default_factory=ActionRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    verify: VerifyRecipe = field(default_factory=VerifyRecipe)


def load_recipe(name_or_path: str | None) -> Recipe:
    """A shipped recipe by name, or a .toml file; None is "default". Raises ConfigError."""
    where = name_or_path or "default"
    recipe = load_toml(Recipe, where, "recipes")
    checks = [
        (recipe.verify.frames >= 4, f"verify.frames = {recipe.verify.frames}", "at least 4 frames are needed"),
        (recipe.action.execute is None or recipe.action.execute > 0, f"action.execute = {recipe.action.execute}",
         "at least one action is executed per replan"),
        (len(recipe.action.low) == len(recipe.action.high), "action.low and action.high differ in length",
         "every dimension needs both bounds"),
        (all(a < b for a, b in zip(recipe.action.low, recipe.action.high)), "action.low is not below action.high",
         "a range has a lower and an upper end"),
        (recipe.loop.max_action_error >= 0, f"loop.max_action_error = {recipe.loop.max_action_error}",
         "an error is not negative"),
        (recipe.loop.form in ("auto", *LOOP_FORMS), f'loop.form = "{recipe.loop.form}"',
         nearest(recipe.loop.form, ("auto", *LOOP_FORMS))),
        (recipe.loop.observations >= 2, f"loop.observations = {recipe.loop.observations}",
         "a spread is over at least two observations"),
        (recipe.action.deadline_ms >= 0, f"action.deadline_ms = {recipe.action.deadline_ms}", "a time is not negative"),
        *_consume_checks(recipe.action),
    ]
    for good, what, why in checks:
        if not good:
            raise ConfigError(what, where=f'recipe "{where}"', why=why, fix="correct the recipe")
    return recipe


def _consume_checks(action: ActionRecipe) -> list[tuple[bool, str, str]]:
    """(good, what, why): keys that another kind of consumption has, and values out of range."""
    mine = {"ensemble": ("decay",), "realtime": ("delay", "schedule", "horizon")}
    checks = [(action.consume in CONSUMES, f'action.consume = "{action.consume}"', nearest(action.consume, CONSUMES))]
    for kind, keys in mine.items():
        checks += [(action.consume == kind or getattr(action, k) is None, f"action.{k} is set",
                    f'it belongs to consume = "{kind}", this is "{action.consume}"') for k in keys]
    return checks + [
        (action.consume != "ensemble" or action.execute in (None, 1), f"action.execute = {action.execute}",
         "an ensemble replans after every action"),
        (action.decay is None or math.isfinite(action.decay), f"action.decay = {action.decay}", "it is not finite"),
        (action.consume != "realtime" or action.delay is not None, "action.delay is missing",
         "realtime needs the ticks that a replan takes"),
        (action.delay is None or action.delay >= 0, f"action.delay = {action.delay}", "ticks are not negative"),
        (action.schedule in (None, *SCHEDULES), f'action.schedule = "{action.schedule}"',
         nearest(action.schedule or "", SCHEDULES)),
    ]
