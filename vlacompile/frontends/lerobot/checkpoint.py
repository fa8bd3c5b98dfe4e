"""A LeRobot checkpoint directory, read and checked before anything heavy is imported.

config.json names the policy type and its features; policy_preprocessor.json and policy_postprocessor.json list
processor steps with their statistics beside them. Older checkpoints keep the statistics in model.safetensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.lerobot.adapter import Adapter, Base, read_adapter
from vlacompile.frontends.lerobot.files import (
    ABSOLUTE,
    ADAPTER,
    HOST_STEPS,
    POSTPROCESSOR,
    PREPROCESSOR,
    RELATIVE,
    WEIGHTS,
    read_json,
    require_real,
)
from vlacompile.frontends.lerobot.relative_actions import relative_dimensions
from vlacompile.frontends.lerobot.statistics import (
    MASKED,
    OPTIONS,
    USUAL,
    Feature,
    Normalisation,
    check_raw,
    check_steps,
    from_processors,
    from_weights,
    has_statistics,
)
from vlacompile.frontends.lerobot.versions import Reading, read_version
from vlacompile.frontends.named_settings import MOST_EVALUATIONS
from vlart.errors import SourceError, nearest

LARGEST_SIZE = 1 << 14  # of a feature's dimension; what is larger is damaged, and would fill the memory
# Largest values of a policy's own counts: of observations and actions, and of evaluations of its network.
MOST = dict.fromkeys(("chunk_size", "horizon", "n_action_steps", "n_obs_steps"), LARGEST_SIZE) | dict.fromkeys(
    ("num_steps", "num_inference_steps", "num_inference_timesteps", "num_denoise_steps", "num_denoising_steps",
     "num_integration_steps", "cem_iterations", "max_decoding_steps"), MOST_EVALUATIONS)
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
    relative: tuple[bool, ...] | None = None  # of the action's dimensions, those that are offsets to the state
    reading: Reading = field(default_factory=Reading)
    options: CheckpointOptions = NONE
    adapter: Adapter | None = None  # to be merged with the weights of `base`, the policy that it was trained on
    base: Base | None = None  # once it was looked up

    def images(self) -> list[str]:
        return [name for name, f in self.inputs.items() if f.type == "VISUAL"]

    def robot_name(self, name: str) -> str:
        return self.renamed.get(name, name)


def read_checkpoint(path: Path, newline_steps: frozenset[str], known_steps: frozenset[str] | None, weights: bool = True,
                    normalised_by: tuple[str, str] = USUAL,
                    options: CheckpointOptions = NONE) -> Checkpoint:
    """newline_steps: processor steps that append a line feed to the instruction. known_steps: further steps that the
    policy's adapter implements; None: whatever step is registered with LeRobot, which runs it. weights: whether the
    file must exist. normalised_by: the steps that normalise observations and un-normalise actions; if they do not keep
    statistics as LeRobot's usual ones, the adapter reads them.
    Raises SourceError."""
    config = read_json(path / "config.json", unique=True)
    inputs, action = _features(config, path)
    _check_counts(path, config)
    adapter = read_adapter(path, config)
    files = {file: _steps(path, file) for file in (PREPROCESSOR, POSTPROCESSOR)}
    pre, post = files[PREPROCESSOR] or [], files[POSTPROCESSOR] or []
    _check_renames(path, pre, inputs)
    usual, raw = normalised_by in (USUAL, MASKED), _raw(path, options, normalised_by)
    none = files[PREPROCESSOR] is None and files[POSTPROCESSOR] is None
    old = none and adapter is None and (not raw or has_statistics(path))
    reading = read_version(path, config, None if old and usual else [*pre, *post], options)
    if weights:
        _check_weights(path, adapter)
    general = {*normalised_by, RENAME, TOKENIZE, RELATIVE, ABSOLUTE}
    others = frozenset(s["registry_name"] for s in (*pre, *post)) - general if known_steps is None else frozenset()
    known_steps = known_steps or frozenset()
    _check_known(path, files, HOST_STEPS | general | newline_steps | known_steps | others)
    if not old or not usual:
        check_steps(path, files, normalised_by, _order(pre, newline_steps, known_steps, normalised_by[0]), raw, others)
    if not usual:
        normalise = {}
    else:
        normalise = (from_weights(path, config, inputs, action) if old else
                     from_processors(path, config, pre, post, inputs, action, raw, not others - HOST_STEPS,
                                     normalised_by))
        check_raw(path, normalise, raw)
    offsets = usual or any(s["registry_name"] in (RELATIVE, ABSOLUTE) for s in (*pre, *post))
    relative = relative_dimensions(path, config, pre, post, inputs, action) if offsets else None
    return Checkpoint(path, config["type"], config, inputs, action, normalise, _renamed(pre),
                      _tokenization(pre, newline_steps), old, (*pre, *post), relative, reading, options, adapter)


def _raw(path: Path, options: CheckpointOptions, normalised_by: Iterable[str]) -> frozenset[str]:
    """The files whose normalising step may be missing."""
    given = {PREPROCESSOR: options.raw_observations, POSTPROCESSOR: options.raw_actions}
    raw = frozenset(file for file, chosen in given.items() if chosen)
    if raw and tuple(normalised_by) != USUAL:
        raise SourceError("this policy type cannot be used with raw numbers", where=str(path),
                          why=f"its steps {' and '.join(normalised_by)} do more than normalise",
                          fix=f"build without {' and '.join(OPTIONS[f] for f in sorted(raw))}")
    return raw


def _check_weights(path: Path, adapter: Adapter | None) -> None:
    file = WEIGHTS if adapter is None else ADAPTER
    if not (path / file).is_file():
        parts = sorted(f.name for f in path.glob("model-*-of-*.safetensors"))
        raise SourceError("the checkpoint has no weights", where=str(path),
                          why=f"{file} is missing" + (f"; LeRobot reads no parts of it ({parts[0]})" if parts else ""),
                          fix="save the policy with LeRobot's save_pretrained, which writes one file" if parts else
                              "give the complete directory that the training wrote (…/pretrained_model)")
    require_real(path / file)


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


def _check_renames(path: Path, pre: list[dict], inputs: Iterable[str]) -> None:
    """Every input must be there after the renaming, under one name of the robot's. Raises SourceError."""
    for step in pre:
        said = step["config"].get("rename_map") or {} if step["registry_name"] == RENAME else {}
        whys = {"it is no table of names": not isinstance(said, dict) or not all(
            isinstance(name, str) for name in said.values())}
        if isinstance(said, dict):
            new = [str(name) for name in said.values()]
            whys |= {f'"{name}" would be the new name of several': new.count(name) > 1 for name in new}
            whys |= {f'"{name}", an input of the policy, would be renamed away': name in inputs and name not in new
                     for name in said}
        if wrong := [why for why, holds in whys.items() if holds]:
            raise SourceError("rename_map does not fit the policy's inputs", where=f"{path / PREPROCESSOR}: {RENAME}",
                              why=wrong[0], fix="name each input of config.json once, by the robot's name for it")


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
    try:
        empty = {f"observation.images.empty_camera_{i}" for i in range(config.get("empty_cameras") or 0)}
        inputs = {n: Feature(f["type"], _shape(f["shape"])) for n, f in config["input_features"].items()
                  if n not in empty}
        outputs = {n: Feature(f["type"], _shape(f["shape"])) for n, f in config["output_features"].items()}
        action = outputs.pop("action")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError("config.json does not declare its inputs and outputs", where=str(path / "config.json"),
                          why=f"input_features and output_features.action are needed; {type(error).__name__}: {error}",
                          fix="save the policy again with its features") from error
    if outputs:
        raise SourceError(f'config.json declares the output "{next(iter(outputs))}" beside "action"',
                          where=f"{path / 'config.json'}: output_features",
                          why='LeRobot\'s policies return "action" alone; a robot would never get the other',
                          fix="remove it there, if the robot can do without it")
    return inputs, action


def _check_counts(path: Path, config: dict) -> None:
    """Raises SourceError for a loop or chunk longer than anybody waits for, or than fits a memory."""
    for name, most in MOST.items():
        said = config.get(name)
        if isinstance(said, int) and (isinstance(said, bool) or not 0 < said <= most):
            raise SourceError(f"{name} is no count of 1 to {most}", where=f"{path / 'config.json'}: {name} = {said!r}"[
                :200], why="every step is traced, and a chunk is kept in memory",
                              fix="use the config.json that the training wrote beside these weights")


def _shape(said: object) -> tuple[int, ...]:
    """Raises ValueError."""
    if not isinstance(said, list) or not all(type(size) is int and 0 < size <= LARGEST_SIZE for size in said):
        raise ValueError(f'"shape" is {said!r}, not a list of sizes of 1 to {LARGEST_SIZE}')
    return tuple(said)


def _steps(path: Path, file: str) -> list[dict] | None:
    """None: there is no such file."""
    if not (path / file).is_file():
        return None
    steps = read_json(path / file, unique=True).get("steps")
    if not isinstance(steps, list) or not all(isinstance(s, dict) and ("registry_name" in s or "class" in s)
                                              and isinstance(s.get("config", {}), dict) for s in steps):
        raise SourceError(f"{file} lists no processor steps", where=str(path / file),
                          why='"steps" is a list of objects with "registry_name" (or "class") and "config"',
                          fix="copy the checkpoint again, completely")
    steps = [{"config": {}, "registry_name": s.get("class"), **s} for s in steps]
    if not all(isinstance(s["registry_name"], str) and _is_file_name(s.get("state_file", file)) for s in steps):
        raise SourceError(f"{file} lists no processor steps", where=str(path / file),
                          why='"registry_name" is no text, or "state_file" no name of a file beside it',
                          fix="copy the checkpoint again, completely")
    return steps


def _is_file_name(said: object) -> bool:
    return isinstance(said, str) and Path(said).name == said


def _tokenization(pre: list[dict], newline_steps: frozenset[str]) -> Tokenization | None:
    for step in pre:
        if step["registry_name"] == TOKENIZE:
            config = step["config"]
            return Tokenization(config["tokenizer_name"], config.get("max_length", 512),
                                config.get("padding_side", "right"),
                                any(s["registry_name"] in newline_steps for s in pre))
    return None
