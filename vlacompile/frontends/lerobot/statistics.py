"""Normalisation of every feature of a LeRobot policy, in and out, and the check that nothing of it is missing.

A policy computes with normalised numbers. If a checkpoint has lost the step that un-normalises actions, or its
statistics, the policy would run and send z-scores to the robot: so every deviation from what a training writes is
refused. A policy that was trained without normalisation declares it: its modes are IDENTITY.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.finite_numbers import finite_numbers
from vlacompile.frontends.lerobot.files import (
    ABSOLUTE,
    HOST_STEPS,
    POSTPROCESSOR,
    PREPROCESSOR,
    WEIGHTS,
    names_of_tensors,
    read_tensors,
)
from vlart.errors import SourceError, nearest

NORMALISE, UNNORMALISE = "normalizer_processor", "unnormalizer_processor"
USUAL = (NORMALISE, UNNORMALISE)
MASKED = ("molmoact2_masked_normalizer", "molmoact2_masked_unnormalizer")  # LeRobot's two, but for some dimensions
NEEDED_STATISTICS = {"IDENTITY": (), "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"),
                     "MIN_MAX_OR_ZERO": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
ACTION = "action"
_OLD = ("normalize_inputs.", "unnormalize_outputs.")  # where LeRobot up to 0.3 keeps statistics, in the weights
_HARM = {PREPROCESSOR: "the policy would get other numbers than in training",
         POSTPROCESSOR: "the robot would get normalised numbers (z-scores) as actions"}
OPTIONS = {PREPROCESSOR: "--assume-raw-observations", POSTPROCESSOR: "--assume-raw-actions"}
_SAVE_AGAIN = ("copy the training's directory again, completely; or save both processors with LeRobot: "
               "make_pre_post_processors(policy.config, dataset_stats=dataset.meta.stats)")


@dataclass(frozen=True)
class Feature:
    """type: VISUAL, STATE, ENV or ACTION. shape: (C, H, W) or (d,)."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of one feature. statistics: {"mean": tensor, ...}, as many as the mode needs."""

    mode: str
    statistics: dict[str, torch.Tensor]
    eps: float


def check_steps(path: Path, files: Mapping[str, list[dict] | None], kinds: tuple[str, str],
                order: Iterable[tuple[str, str]], raw: frozenset[str] = frozenset(),
                others: frozenset[str] = frozenset()) -> None:
    """files: {name: its steps, None if it is missing}. kinds: the step that normalises observations, the one that
    un-normalises actions. order: (step, step that must not come before it) of the preprocessor. raw: the files that
    need not have theirs, because a person said so. others: steps of either file that the policy's own code implements.
    Raises SourceError."""
    for file, kind in zip((PREPROCESSOR, POSTPROCESSOR), kinds, strict=True):
        if files[file] is None and file not in raw:
            raise SourceError(f"{file} is missing", where=str(path), why=_HARM[file], fix=_fix(file))
        own = [s for s in files[file] or () if s["registry_name"] == kind]
        if len(own) > 1:
            raise SourceError(f"{file} has {len(own)} steps {kind}", where=str(path / file),
                              why="numbers must be normalised and un-normalised exactly once", fix=_SAVE_AGAIN)
    before, after = ([s["registry_name"] for s in files[f] or ()] for f in (PREPROCESSOR, POSTPROCESSOR))
    strange = [(PREPROCESSOR, n) for n in before if n == kinds[1]] + [
        (POSTPROCESSOR, n) for n in after if n not in {kinds[1], ABSOLUTE} | HOST_STEPS | others]
    if strange:
        file, name = strange[0]
        raise SourceError(f"{file} has the step {name} of the other file", where=str(path / file),
                          why="observations are normalised at the input, actions un-normalised at the output",
                          fix=_SAVE_AGAIN)
    for first, second in order:
        if first in before and second in before and before.index(first) > before.index(second):
            raise SourceError(f"{second} comes before {first}", where=str(path / PREPROCESSOR),
                              why=f"{second} needs the output of {first}; " + _HARM[PREPROCESSOR], fix=_SAVE_AGAIN)


def _fix(file: str) -> str:
    units = "observations as the robot gives them" if file == PREPROCESSOR else "actions in robot units"
    return f"{_SAVE_AGAIN}; or {OPTIONS[file]}, if it was trained on {units}"


def check_raw(path: Path, normalise: Mapping[str, Normalisation], raw: frozenset[str]) -> None:
    """Raises SourceError if a person said that a side is raw and the checkpoint normalises it."""
    for file in sorted(raw):
        done = [n for n, found in normalise.items() if (n == ACTION) == (file == POSTPROCESSOR)
                and found.mode != "IDENTITY"]
        if done:
            raise SourceError(f"{OPTIONS[file]} contradicts the checkpoint", where=str(path / file),
                              why=f'"{done[0]}" is normalised there as {normalise[done[0]].mode}',
                              fix=f"build without {OPTIONS[file]}")


def from_processors(path: Path, config: dict, pre: list[dict], post: list[dict], inputs: Mapping[str, Feature],
                    action: Feature, raw: frozenset[str] = frozenset(), sized: bool = True,
                    kinds: tuple[str, str] = USUAL) -> dict[str, Normalisation]:
    """{feature: its normalisation}, from the steps of both files. raw, kinds: see check_steps. sized: whether the
    features have config.json's sizes where they are normalised. Raises SourceError."""
    into, out = (next((s for s in steps if s["registry_name"] == kind), None)
                 for steps, kind in zip((pre, post), kinds, strict=True))
    types = sorted({f.type for f in inputs.values()} | {"ACTION"})
    modes_in = _modes(path / PREPROCESSOR, kinds[0], into, config, [] if PREPROCESSOR in raw else types)
    modes_out = _modes(path / POSTPROCESSOR, kinds[1], out, config, [] if POSTPROCESSOR in raw else ["ACTION"])
    one, other = modes_in.get("ACTION", "IDENTITY"), modes_out.get("ACTION", "IDENTITY")
    if one != other and not raw:
        raise SourceError(f"actions are normalised as {one} and un-normalised as {other}",
                          where=f"{path}: norm_map in {PREPROCESSOR} and {POSTPROCESSOR}",
                          why="the policy's actions would reach the robot in wrong units",
                          fix=_SAVE_AGAIN)
    found: dict[str, Normalisation] = {}
    if into is not None:
        _check_names(path, inputs, _features_of(path / PREPROCESSOR, into))
        found |= _of_step(path, PREPROCESSOR, into, modes_in, inputs, sized)
    if out is not None and other != "IDENTITY":
        _check_action(path, kinds[1], _features_of(path / POSTPROCESSOR, out))
        found |= _of_step(path, POSTPROCESSOR, out, modes_out, {ACTION: action}, sized)
    return found


def _modes(where: Path, kind: str, step: dict | None, config: dict, types: list[str]) -> dict[str, str]:
    """{type: mode} of a step, {} if there is no such step. Raises SourceError if a type is not normalised without a
    record that the policy was trained so; LeRobot makes the steps from normalization_mapping in config.json."""
    said, file = config.get("normalization_mapping"), where.name
    modes = {} if step is None else step["config"].get("norm_map") or {}
    eps = 1e-8 if step is None else step["config"].get("eps", 1e-8)
    if not isinstance(modes, dict) or finite_numbers([eps]) is None or eps < 0:
        raise SourceError(f"{kind} is not understood", where=str(where),
                          why=f"norm_map = {modes!r}, eps = {eps!r}; they are a table of modes and a small number",
                          fix=_SAVE_AGAIN)
    for t, mode in modes.items():
        _check_mode(where, t, mode)
    for t in types:
        trained = said.get(t, "IDENTITY") if isinstance(said, dict) else modes.get(t)
        if modes.get(t, "IDENTITY") == "IDENTITY" != trained:
            raise SourceError(
                f"{file} has no step {kind}" if step is None else f"{kind} does not change {t}", where=str(where),
                why=("there is no record that the policy was trained without" if trained is None else
                     f"config.json says that the policy was trained with {t} as {trained}") + "; " + _HARM[file],
                fix=_fix(file))
    return modes


def _features_of(where: Path, step: dict) -> dict[str, dict]:
    features = step["config"].get("features") or {}
    if not isinstance(features, dict) or not all(isinstance(f, dict) and "type" in f for f in features.values()):
        raise SourceError(f'features of {step["registry_name"]} are not {{name: {{"type", "shape"}}}}',
                          where=str(where),
                          why="they define how each number is normalised", fix=_SAVE_AGAIN)
    return features


def _of_step(path: Path, file: str, step: dict, modes: dict[str, str],
             features: Mapping[str, Feature], sized: bool) -> dict[str, Normalisation]:
    config = step["config"]
    statistics = read_tensors(path / step["state_file"]) if "state_file" in step else {}
    chosen = config.get("normalize_observation_keys") if file == PREPROCESSOR else None
    found = {}
    for name, feature in features.items():
        if chosen is None or name in chosen:
            mode = modes.get(config["features"][name]["type"], "IDENTITY")
            found[name] = choose_normalisation(path / file, name, mode, statistics, config.get("eps", 1e-8))
            if sized:
                _check_sizes(path / file, name, feature, found[name])
    return found


def _check_names(path: Path, inputs: Mapping[str, Feature], features: dict) -> None:
    strange = [n for n in inputs if n not in features]
    if strange:
        known = ", ".join(n for n, f in features.items() if f["type"] != "ACTION")
        raise SourceError(f'the preprocessor has no "{strange[0]}"', where=str(path / PREPROCESSOR),
                          why=f"config.json has it as an input; the preprocessor has {known or 'none'}",
                          fix="use one naming of cameras and state in both files (rename_map in the preprocessor)")
    other = [n for n, f in inputs.items() if features[n]["type"] != f.type]
    if other:
        raise SourceError(f'the preprocessor takes "{other[0]}" for {features[other[0]]["type"]}',
                          where=str(path / PREPROCESSOR),
                          why=f"config.json says {inputs[other[0]].type}; norm_map is keyed by "
                          "these types", fix=_SAVE_AGAIN)


def _check_action(path: Path, kind: str, features: dict) -> None:
    if features.get(ACTION, {}).get("type") != "ACTION":
        found = ", ".join(f"{n} of type {f['type']}" for n, f in features.items())
        raise SourceError(f'{kind} has no "{ACTION}"', where=f"{path / POSTPROCESSOR}: features",
                          why=f"it has {found or 'none'}; {_HARM[POSTPROCESSOR]}", fix=_SAVE_AGAIN)


def _check_mode(where: Path, name: str, mode: str) -> None:
    if mode not in NEEDED_STATISTICS:
        raise SourceError(f'"{name}" has an unknown normalisation "{mode}"', where=str(where),
                          why=nearest(str(mode), NEEDED_STATISTICS), fix="correct norm_map")


def _damaged(mode: str, found: dict[str, torch.Tensor]) -> list[str]:
    """The statistics that no dataset has: a spread below zero, numbers that are complex or whole."""
    odd = [s for s, t in found.items() if not t.is_floating_point()]
    if odd or not found:
        return odd
    first, second = (found[s].double() for s in NEEDED_STATISTICS[mode])
    if mode == "MEAN_STD":
        return ["std"] if bool((second < 0).any()) else []
    rounding = 1e-5 * first.abs().clamp(min=1.0)  # of quantiles of a number that never changes
    return list(found) if first.shape == second.shape and bool((second < first - rounding).any()) else []


def choose_normalisation(where: Path, name: str, mode: str, statistics: dict[str, torch.Tensor],
                         eps: float) -> Normalisation:
    """statistics: {"<name>.<statistic>": tensor}. Raises SourceError for an unknown mode, and for statistics that are
    missing or were never filled (LeRobot 0.3 begins with infinity)."""
    _check_mode(where, name, mode)
    missing = [s for s in NEEDED_STATISTICS[mode] if f"{name}.{s}" not in statistics]
    if missing:
        raise SourceError(f'statistics of "{name}" are missing: {", ".join(missing)}', where=str(where),
                          why=f"its normalisation is {mode}; "
                          + _HARM[POSTPROCESSOR if name == ACTION else PREPROCESSOR],
                          fix="copy the processor's .safetensors files too, or save them with the dataset's statistics")
    found = {s: statistics[f"{name}.{s}"] for s in NEEDED_STATISTICS[mode]}
    wrong = [s for s, t in found.items() if not bool(torch.isfinite(t).all())]
    if wrong:
        raise SourceError(f'statistics of "{name}" hold NaN or infinity: {", ".join(wrong)}', where=str(where),
                          why="they were never filled from a dataset; every action would be NaN",
                          fix="save the policy again with the dataset's statistics")
    if odd := _damaged(mode, found):
        raise SourceError(f'statistics of "{name}" are damaged: {", ".join(odd)}', where=str(where),
                          why="a deviation is negative, a maximum is below its minimum, or they are no real numbers",
                          fix="save the policy again with the dataset's statistics")
    return Normalisation(mode, found, eps)


def _check_sizes(where: Path, name: str, feature: Feature, found: Normalisation) -> None:
    """Check the sizes: for vectors one number per element, or one for all; for frames one per channel."""
    size = feature.shape[0] if feature.type == "VISUAL" else math.prod(feature.shape)
    wrong = [s for s, t in found.statistics.items() if t.numel() not in (1, size)]
    if wrong:
        raise SourceError(f'statistics of "{name}" do not fit it', where=str(where),
                          why=f"{wrong[0]} has {found.statistics[wrong[0]].numel()} numbers, config.json says "
                              f"{list(feature.shape)}", fix="use config.json and the processors of one training")


def has_statistics(path: Path) -> bool:
    """Whether the weights contain statistics, as LeRobot up to 0.3 writes them."""
    return (path / WEIGHTS).is_file() and any(n.startswith(_OLD) for n in names_of_tensors(path / WEIGHTS))


def _old_tensors(where: Path) -> dict[str, torch.Tensor]:
    """The statistics among the weights, without a dataset's marker in their names (normalize_inputs.so100_buffer_...
    of multi-dataset trainings). Raises SourceError if they are of several datasets."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in read_tensors(where, prefixes=_OLD).items():
        plain = re.sub(r"\.so\d+(?:-\w+)?_buffer_", ".buffer_", name)
        if plain in found and not torch.equal(found[plain], tensor):
            raise SourceError("the weights contain statistics of several datasets", where=f"{where}: {name}",
                              why="the robot's actions would be un-normalised by those of another one",
                              fix="save the policy with the processors of the robot's dataset, by LeRobot 0.4.4: "
                                  "make_pre_post_processors(policy.config, dataset_stats=dataset.meta.stats)")
        found[plain] = tensor
    return found


def from_weights(path: Path, config: dict, inputs: Mapping[str, Feature], action: Feature) -> dict[str, Normalisation]:
    """The normalisation of a checkpoint without processors, as written by LeRobot up to 0.3:
    normalize_inputs.buffer_observation_state.mean and the like, in model.safetensors. Raises SourceError."""
    old = _OLD
    tensors = _old_tensors(path / WEIGHTS) if (path / WEIGHTS).is_file() else {}
    modes, features = config.get("normalization_mapping"), {**inputs, ACTION: action}
    if not isinstance(modes, dict) or (not tensors and any(modes.get(f.type, "IDENTITY") != "IDENTITY"
                                                           for f in features.values())):
        raise SourceError(f"{PREPROCESSOR} and {POSTPROCESSOR} are missing", where=str(path),
                          why=f"nor has {WEIGHTS} {old[0]}* and {old[1]}*, as checkpoints up to LeRobot 0.3 do; "
                              + _HARM[POSTPROCESSOR],
                          fix=f"{_SAVE_AGAIN}; or {' '.join(OPTIONS.values())}, if it was trained without")
    found = {}
    for name, feature in features.items():
        stem = f"{old[name == ACTION]}buffer_{name.replace('.', '_')}."
        statistics = {f"{name}.{k.removeprefix(stem)}": t for k, t in tensors.items() if k.startswith(stem)}
        found[name] = choose_normalisation(path / WEIGHTS, name, modes.get(feature.type, "IDENTITY"), statistics, 1e-8)
        if statistics and not found[name].statistics:
            raise SourceError(f'"{name}" has statistics that config.json does not use', where=str(path),
                              why=f'{WEIGHTS} has {stem}*, normalization_mapping has no mode for "{feature.type}"; '
                                  + _HARM[POSTPROCESSOR if name == ACTION else PREPROCESSOR],
                              fix="use config.json and model.safetensors of one training")
        _check_sizes(path / WEIGHTS, name, feature, found[name])
    return found
