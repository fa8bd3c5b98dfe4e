"""The files of a LeRobot checkpoint directory, checked before anything heavy is imported.

config.json names the policy type and its features; policy_preprocessor.json and policy_postprocessor.json list
processor steps with their statistics beside them. Older checkpoints keep the statistics in model.safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vlacompile.errors import SourceError, nearest

WEIGHTS, PREPROCESSOR, POSTPROCESSOR = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
# Steps that only concern a training or driving program: batching, devices. What they do is done by the compiled
# policy's declared shapes.
HOST_STEPS = frozenset({"to_batch_processor", "device_processor"})
NORMALISE, UNNORMALISE, RENAME, TOKENIZE = ("normalizer_processor", "unnormalizer_processor",
                                            "rename_observations_processor", "tokenizer_processor")
NEEDED_STATISTICS = {"IDENTITY": (), "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"),
                     "MIN_MAX_OR_ZERO": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}


@dataclass(frozen=True)
class Feature:
    """type: VISUAL, STATE, ENV or ACTION. shape: (C, H, W) or (d,)."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Normalisation:
    """What one feature goes through. statistics: {"mean": tensor, ...}, as many as the mode needs."""

    mode: str
    statistics: dict[str, torch.Tensor]
    eps: float


@dataclass(frozen=True)
class Tokenization:
    """How the instruction becomes tokens, on the host. name: of the tokenizer, a hub id or a directory."""

    name: str
    max_length: int
    padding_side: str
    newline: bool


@dataclass(frozen=True)
class Checkpoint:
    """inputs: {feature name as the policy knows it: Feature}, in the order of config.json. renamed: {that name:
    the robot's name}. normalise: {feature name: Normalisation}, "action" for the way out."""

    path: Path
    type: str
    config: dict
    inputs: dict[str, Feature]
    action: Feature
    normalise: dict[str, Normalisation]
    renamed: dict[str, str]
    tokenization: Tokenization | None
    old_statistics: bool  # they lie in model.safetensors and are no weights
    steps: tuple[dict, ...] = ()  # of both processors

    def images(self) -> list[str]:
        return [name for name, f in self.inputs.items() if f.type == "VISUAL"]

    def robot_name(self, name: str) -> str:
        return self.renamed.get(name, name)


def read_json(path: Path) -> dict:
    """Raises SourceError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        return content
    except (OSError, ValueError) as error:
        raise SourceError(f"the checkpoint's {path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, whole") from error


def read_checkpoint(path: Path, newline_steps: frozenset[str], known_steps: frozenset[str],
                    weights: bool = True) -> Checkpoint:
    """newline_steps: processor steps that end the instruction with a line feed. known_steps: further steps that
    the policy's adapter does itself. weights: whether the file must be there. Raises SourceError."""
    config = read_json(path / "config.json")
    if weights and not (path / WEIGHTS).is_file():
        raise SourceError("the checkpoint has no weights", where=str(path), why=f"{WEIGHTS} is missing",
                          fix="give the directory that the training wrote (…/pretrained_model), complete")
    inputs, action = _features(config, path)
    pre, post = _steps(path, PREPROCESSOR), _steps(path, POSTPROCESSOR)
    for file, steps in ((PREPROCESSOR, pre), (POSTPROCESSOR, post)):
        for step in steps:
            known = HOST_STEPS | {NORMALISE, UNNORMALISE, RENAME, TOKENIZE} | newline_steps | known_steps
            if step["registry_name"] not in known:
                raise SourceError(f'{file} has a step "{step["registry_name"]}" that is not known',
                                  where=str(path / file), why=nearest(step["registry_name"], known),
                                  fix="compile a checkpoint without it, or do this step before write()")
    renamed = {new: old for step in pre if step["registry_name"] == RENAME
               for old, new in step["config"].get("rename_map", {}).items()}
    old = not pre and not post
    normalise = _old_statistics(path, config, inputs) if old else _normalisation(path, pre, post, inputs)
    return Checkpoint(path, config["type"], config, inputs, action, normalise, renamed,
                      _tokenization(pre, newline_steps), old, (*pre, *post))


def _features(config: dict, path: Path) -> tuple[dict[str, Feature], Feature]:
    """Empty cameras, which fill a place that the robot has no camera for, are no inputs: LeRobot masks them."""
    empty = {f"observation.images.empty_camera_{i}" for i in range(config.get("empty_cameras") or 0)}
    try:
        inputs = {n: Feature(f["type"], tuple(f["shape"])) for n, f in config["input_features"].items()
                  if n not in empty}
        outputs = {n: Feature(f["type"], tuple(f["shape"])) for n, f in config["output_features"].items()}
        return inputs, outputs["action"]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError("config.json does not say what goes in and out", where=str(path / "config.json"),
                          why=f"input_features and output_features.action are needed; {type(error).__name__}: {error}",
                          fix="save the policy again with its features") from error


def _steps(path: Path, file: str) -> list[dict]:
    if not (path / file).is_file():
        return []
    steps = read_json(path / file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(s, dict) and "registry_name" in s for s in steps):
        raise SourceError(f"{file} lists no processor steps", where=str(path / file),
                          why='"steps" is a list of objects with "registry_name" and "config"',
                          fix="copy the checkpoint again, whole")
    return [{"config": {}, **s} for s in steps]


def _normalisation(path: Path, pre: list[dict], post: list[dict],
                   inputs: dict[str, Feature]) -> dict[str, Normalisation]:
    found: dict[str, Normalisation] = {}
    for steps, kind, names in ((pre, NORMALISE, list(inputs)), (post, UNNORMALISE, ["action"])):
        for step in (s for s in steps if s["registry_name"] == kind):
            features, modes = step["config"].get("features", {}), step["config"].get("norm_map", {})
            statistics = read_tensors(path / step["state_file"]) if "state_file" in step else {}
            if kind == NORMALISE:
                _check_names(path, inputs, features)
            chosen = step["config"].get("normalize_observation_keys")
            for name in names:
                if name in features and (chosen is None or name in chosen or kind == UNNORMALISE):
                    mode = modes.get(features[name]["type"], "IDENTITY")
                    found[name] = choose_normalisation(path, name, mode, statistics, step["config"].get("eps", 1e-8))
    return found


def _check_names(path: Path, inputs: dict[str, Feature], features: dict) -> None:
    strange = [n for n in inputs if n not in features]
    if strange:
        known = ", ".join(n for n, f in features.items() if f["type"] != "ACTION")
        raise SourceError(f'the preprocessor knows no "{strange[0]}"', where=str(path / PREPROCESSOR),
                          why=f"config.json has it as an input; the preprocessor has {known}",
                          fix="use one naming of cameras and state in both files (rename_map in the preprocessor)")


def choose_normalisation(path: Path, name: str, mode: str, statistics: dict[str, torch.Tensor],
                         eps: float) -> Normalisation:
    """statistics: {"<name>.<statistic>": tensor}. Raises SourceError for an unknown mode or missing statistics."""
    if mode not in NEEDED_STATISTICS:
        raise SourceError(f'"{name}" has an unknown normalisation "{mode}"', where=str(path),
                          why=nearest(mode, NEEDED_STATISTICS), fix="correct norm_map")
    missing = [s for s in NEEDED_STATISTICS[mode] if f"{name}.{s}" not in statistics]
    if missing:
        raise SourceError(f'statistics of "{name}" are missing: {", ".join(missing)}', where=str(path),
                          why=f"its normalisation is {mode}; without them the policy would see other numbers than in "
                              "training", fix="copy the processor's .safetensors files too, or save them with the dataset's "
                                              "statistics")
    return Normalisation(mode, {s: statistics[f"{name}.{s}"] for s in NEEDED_STATISTICS[mode]}, eps)


def _old_statistics(path: Path, config: dict, inputs: dict[str, Feature]) -> dict[str, Normalisation]:
    """normalize_inputs.buffer_observation_state.mean and the like, in model.safetensors."""
    tensors = read_tensors(path / WEIGHTS, prefixes=("normalize_inputs.", "unnormalize_outputs."))
    modes = config.get("normalization_mapping", {})
    found = {}
    for name, feature in (*inputs.items(), ("action", Feature("ACTION", ()))):
        group = "unnormalize_outputs" if name == "action" else "normalize_inputs"
        stem = f"{group}.buffer_{name.replace('.', '_')}."
        statistics = {f"{name}.{k.removeprefix(stem)}": t for k, t in tensors.items() if k.startswith(stem)}
        found[name] = choose_normalisation(path, name, modes.get(feature.type, "IDENTITY"), statistics, 1e-8)
    return found


def read_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose names begin so. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys() if k.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, whole") from error


def _tokenization(pre: list[dict], newline_steps: frozenset[str]) -> Tokenization | None:
    for step in pre:
        if step["registry_name"] == TOKENIZE:
            config = step["config"]
            return Tokenization(config["tokenizer_name"], config.get("max_length", 512),
                                config.get("padding_side", "right"),
                                any(s["registry_name"] in newline_steps for s in pre))
    return None
