"""A LeRobot checkpoint directory, read and checked before anything heavy is imported.

config.json names the policy type and its features; policy_preprocessor.json and policy_postprocessor.json list
processor steps with their statistics beside them. Older checkpoints keep the statistics in model.safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlacompile.errors import SourceError, nearest
from vlacompile.frontends.lerobot.files import ADAPTER, HOST_STEPS, POSTPROCESSOR, PREPROCESSOR, WEIGHTS, read_json
from vlacompile.frontends.lerobot.statistics import (
    NORMALISE,
    UNNORMALISE,
    Feature,
    Normalisation,
    check_steps,
    from_processors,
    from_weights,
)
from vlacompile.frontends.lerobot.versions import check_version

RENAME, TOKENIZE = "rename_observations_processor", "tokenizer_processor"


@dataclass(frozen=True)
class Tokenization:
    """Tokenization of the instruction, on the host. name: of the tokenizer, a hub id or a directory."""

    name: str
    max_length: int
    padding_side: str
    newline: bool


@dataclass(frozen=True)
class Checkpoint:
    """inputs: {feature name in the policy: Feature}, in the order of config.json. renamed: {that name: the robot's
    name}. normalise: {feature name: Normalisation}, with "action" for the output."""

    path: Path
    type: str
    config: dict
    inputs: dict[str, Feature]
    action: Feature
    normalise: dict[str, Normalisation]
    renamed: dict[str, str]
    tokenization: Tokenization | None
    old_statistics: bool  # they are stored in model.safetensors and are not weights
    steps: tuple[dict, ...] = ()  # of both processors

    def images(self) -> list[str]:
        return [name for name, f in self.inputs.items() if f.type == "VISUAL"]

    def robot_name(self, name: str) -> str:
        return self.renamed.get(name, name)


def read_checkpoint(path: Path, newline_steps: frozenset[str], known_steps: frozenset[str], weights: bool = True,
                    normalised_by: tuple[str, str] = (NORMALISE, UNNORMALISE)) -> Checkpoint:
    """newline_steps: processor steps that append a line feed to the instruction. known_steps: further steps that the
    policy's adapter implements. weights: whether the file must exist. normalised_by: the steps that normalise
    observations and un-normalise actions; if they are not LeRobot's usual ones, the adapter reads their statistics.
    Raises SourceError."""
    config = read_json(path / "config.json")
    inputs, action = _features(config, path)
    files = {file: _steps(path, file) for file in (PREPROCESSOR, POSTPROCESSOR)}
    pre, post = files[PREPROCESSOR] or [], files[POSTPROCESSOR] or []
    check_version(path, config, [*pre, *post])
    if weights:
        _check_weights(path)
    _check_known(path, files, HOST_STEPS | {*normalised_by, RENAME, TOKENIZE} | newline_steps | known_steps)
    old, usual = files[PREPROCESSOR] is None and files[POSTPROCESSOR] is None, normalised_by == (NORMALISE, UNNORMALISE)
    if not old or not usual:
        check_steps(path, files, normalised_by, _order(pre, newline_steps, known_steps, normalised_by[0]))
    if not usual:
        normalise = {}
    else:
        normalise = (from_weights(path, config, inputs, action) if old else
                     from_processors(path, config, pre, post, inputs, action))
    return Checkpoint(path, config["type"], config, inputs, action, normalise, _renamed(pre),
                      _tokenization(pre, newline_steps), old, (*pre, *post))


def _check_weights(path: Path) -> None:
    if (path / WEIGHTS).is_file():
        return
    if (path / ADAPTER).is_file():
        raise SourceError("the checkpoint is an adapter (LoRA), not a whole policy", where=str(path / ADAPTER),
                          why=f"it contains updates of another checkpoint's weights, and no {WEIGHTS}",
                          fix="merge it with LeRobot: PeftModel.from_pretrained(policy, this directory)"
                              ".merge_and_unload().save_pretrained(new directory); copy the policy_*processor* files "
                              "there too")
    raise SourceError("the checkpoint has no weights", where=str(path), why=f"{WEIGHTS} is missing",
                      fix="give the complete directory that the training wrote (…/pretrained_model)")


def _check_known(path: Path, files: dict[str, list[dict] | None], known: frozenset[str]) -> None:
    for file, steps in files.items():
        for step in steps or ():
            if step["registry_name"] not in known:
                raise SourceError(f'{file} has a step "{step["registry_name"]}" that is not supported',
                                  where=str(path / file), why=nearest(step["registry_name"], known),
                                  fix="compile a checkpoint without it, or do this step before write()")


def _renamed(pre: list[dict]) -> dict[str, str]:
    return {new: old for step in pre if step["registry_name"] == RENAME
            for old, new in (step["config"].get("rename_map") or {}).items()}


def _order(pre: list[dict], newline_steps: frozenset[str], known_steps: frozenset[str],
           normalise: str) -> list[tuple[str, str]]:
    """(step, step that must come after it): statistics use the policy's names; text that contains the state is
    formatted
    from the normalised state, before tokenization."""
    renames = [(RENAME, normalise)] if _renamed(pre) else []
    own = sorted(known_steps - {normalise})
    return [*renames, *((normalise, s) for s in own), *((s, TOKENIZE) for s in (*sorted(newline_steps), *own))]


def _features(config: dict, path: Path) -> tuple[dict[str, Feature], Feature]:
    """Empty cameras, placeholders for cameras that the robot lacks, are not inputs: LeRobot masks them."""
    empty = {f"observation.images.empty_camera_{i}" for i in range(config.get("empty_cameras") or 0)}
    try:
        inputs = {n: Feature(f["type"], tuple(f["shape"])) for n, f in config["input_features"].items()
                  if n not in empty}
        outputs = {n: Feature(f["type"], tuple(f["shape"])) for n, f in config["output_features"].items()}
        return inputs, outputs["action"]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError("config.json does not declare its inputs and outputs", where=str(path / "config.json"),
                          why=f"input_features and output_features.action are needed; {type(error).__name__}: {error}",
                          fix="save the policy again with its features") from error


def _steps(path: Path, file: str) -> list[dict] | None:
    """None: there is no such file."""
    if not (path / file).is_file():
        return None
    steps = read_json(path / file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(s, dict) and "registry_name" in s
                                              and isinstance(s.get("config", {}), dict) for s in steps):
        raise SourceError(f"{file} lists no processor steps", where=str(path / file),
                          why='"steps" is a list of objects with "registry_name" and "config"',
                          fix="copy the checkpoint again, completely")
    return [{"config": {}, **s} for s in steps]


def _tokenization(pre: list[dict], newline_steps: frozenset[str]) -> Tokenization | None:
    for step in pre:
        if step["registry_name"] == TOKENIZE:
            config = step["config"]
            return Tokenization(config["tokenizer_name"], config.get("max_length", 512),
                                config.get("padding_side", "right"),
                                any(s["registry_name"] in newline_steps for s in pre))
    return None
