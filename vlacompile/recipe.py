"""Recipes: what is wanted of a build. `recipes/*.toml` -> frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlacompile.bundle.layout import LOOP_FORMS
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
    deadline_ms: time that one step may take; 0: none."""

    execute: int | None = None
    low: tuple[float, ...] = field(default=())
    high: tuple[float, ...] = field(default=())
    deadline_ms: float = 0.0


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
    ]
    for good, what, why in checks:
        if not good:
            raise ConfigError(what, where=f'recipe "{where}"', why=why, fix="correct the recipe")
    return recipe
