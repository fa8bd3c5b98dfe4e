"""Which LeRobot wrote a checkpoint, from keys in its files, and by which version's rules it is read.

LeRobot stores no version, and some policy types compute something else since a version: the same weights mean other
actions. A key that a version introduced shows that it, or a later one, wrote the file; a key that every later version
writes shows by its absence that an earlier one did. What remains open is assumed, said, and can be chosen. The
differences were measured one by one: the same weights in both versions, on the same inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlacompile.frontends.checkpoint_options import NONE, CheckpointOptions
from vlacompile.frontends.lerobot.files import (
    POSTPROCESSOR,
    PREPROCESSOR,
    TRAINING,
    WEIGHTS,
    names_of_tensors,
    read_json,
)
from vlart.errors import SourceError

EARLIER, OURS = "0.4.4", "0.6.1"  # the two versions whose code is run
CONFIG = "config.json"

# Keys that a version added to config.json, for all policy types or for one; the key is written whatever its value.
_CONFIG_KEYS = {"pretrained_revision": "0.6.0"}
_RELATIVE = dict.fromkeys(("action_feature_names", "relative_exclude_joints", "use_relative_actions"), "0.5.1")
_CONFIG_KEYS_OF = {
    "diffusion": {"gradient_checkpointing": "0.6.1"},
    "groot": dict.fromkeys(("action_decode_transform", "model_params_fp32", "num_inference_timesteps",
                            "relative_exclude_joints", "rtc_ramp_rate", "tune_top_llm_layers", "tune_vlln",
                            "use_flash_attention", "use_relative_actions"), "0.6.0"),
    "pi0": _RELATIVE, "pi05": _RELATIVE,
}
_TRAINING_KEYS = {"cudnn_deterministic": "0.5.0", "env_eval_freq": "0.6.0",
                  "dataloader_multiprocessing_context": "0.6.1"}
_STEPS = {"relative_actions_processor": "0.5.1", "absolute_actions_processor": "0.5.1"}
_PALIGEMMA = "paligemma_with_expert.paligemma."
_EMBEDDINGS = {"lm_head.weight", "model.language_model.embed_tokens.weight"}

CHANGED = "0.5.0"  # since which these types compute something else, and what
_CHANGES = {
    "pi0": "the token embedding, the padding of frames that are not square",
    "pi05": "the token embedding, the padding of frames that are not square, the state in the prompt",
    "smolvla": "the positions of a frame's patches",
}
# The transformers that a version of LeRobot asks for, oldest first; SmolVLA's patches are numbered 0, 0, 1, ..., 30 by
# 4.54 to 4.57 and 0, 1, ..., 31 by all others.
_TRANSFORMERS = {"0.1.0": "4.51", "0.4.0": "4.57", "0.5.0": "5.5"}
_PATCHES = "smolvla"  # the type that depends on them


@dataclass(frozen=True)
class Hint:
    """`file` shows by `what` that no LeRobot before `version`, or none since it, wrote the checkpoint."""

    version: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Reading:
    """By which rules a checkpoint is read. lerobot, transformers: the versions whose rules hold. written: what the
    files say about the version. open: what they leave open, and how to choose it, one sentence each."""

    lerobot: str = EARLIER
    transformers: str = "4.57"
    written: str = "not said by the files"
    open: tuple[str, ...] = ()
    by_earlier: bool = True  # whether EARLIER's own code reads it and computes it so

    @property
    def untied(self) -> bool:
        """Whether the rules are those since LeRobot 0.5: see _CHANGES."""
        return untied(self.lerobot)

    @property
    def first_patch_twice(self) -> bool:
        return (4, 54) <= number(self.transformers) < (5,)


def untied(lerobot: str) -> bool:
    return number(lerobot) >= number(CHANGED)


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def read_version(path: Path, config: dict, steps: Iterable[dict] | None,
                 options: CheckpointOptions = NONE) -> Reading:
    """steps: of both processors; None: there are none, the statistics are among the weights. Raises SourceError for a
    version that is not known or that the files contradict."""
    kind, since = str(config.get("type")), list(_since(path, config, steps or ()))
    newest = max(since, key=lambda h: number(h.version), default=None)
    for name, given in (("lerobot", options.lerobot), ("transformers", options.transformers)):
        _check_given(name, given)
    if options.lerobot and newest is not None and number(options.lerobot) < number(newest.version):
        raise SourceError(f"--lerobot {options.lerobot} contradicts the checkpoint", where=f"{path}: {newest}",
                          why=f"no LeRobot before {newest.version} writes that",
                          fix=f"build with --lerobot {newest.version} or later, or without the option")
    before = None if newest is not None and number(newest.version) >= number(CHANGED) else _before(path, config, steps)
    read, assumed = _rules(kind, newest, before, options)
    if assumed and _is_openpis(path, config):
        read, assumed = OURS, (f"as openpi trains it, whose names its weights have, and LeRobot since {CHANGED} "
                               f"computes it; choose another with --lerobot {EARLIER}",)
    modules = options.transformers or max((v for v in _TRANSFORMERS.items() if number(v[0]) <= number(read)),
                                          key=lambda v: number(v[0]))[1]
    if kind == _PATCHES and not options.transformers and (0, 4) <= number(read) < (0, 5):
        assumed += (f"trained with transformers {modules}, which no file says (patch positions differ, up to 1 % of "
                    "the actions); choose another with --transformers 4.53 or 5.5",)
    found = Reading(read, modules, _written(newest, before), assumed)
    means_other = kind in _CHANGES and (found.untied or (kind == _PATCHES and not found.first_patch_twice))
    newer = any(h.file in (CONFIG, PREPROCESSOR, POSTPROCESSOR) for h in since)
    return replace(found, by_earlier=not means_other and not newer)


def _rules(kind: str, newest: Hint | None, before: Hint | None,
           options: CheckpointOptions) -> tuple[str, tuple[str, ...]]:
    """(the version whose rules hold, what was assumed)."""
    if options.lerobot:
        return options.lerobot, ()
    if newest is not None and number(newest.version) >= number(CHANGED):
        return (newest.version if kind == "groot" else OURS), ()
    if before is not None and number(before.version) <= number(CHANGED):
        return ("0.3.3" if number(before.version) <= (0, 4, 0) else EARLIER), ()
    if kind not in _CHANGES or (kind == _PATCHES and options.transformers):  # all that changed is then known
        return EARLIER, ()
    return EARLIER, (f"written by LeRobot {EARLIER}, which no file says ({_CHANGES[kind]} changed in {CHANGED}); "
                     f"choose another with --lerobot {OURS}",)


def _written(newest: Hint | None, before: Hint | None) -> str:
    found = [f"{newest.version} or later ({newest})"] if newest else []
    found += [f"before {before.version} ({before})"] if before else []
    return ", ".join(found) or "not said by the files"


def _check_given(name: str, given: str | None) -> None:
    if given is None:
        return
    known = {"lerobot": ("0.1.0", OURS), "transformers": ("4.40", "5.99")}[name]
    low, high = map(number, known)
    if not re.fullmatch(r"\d+(\.\d+){0,2}", given) or not low <= number(given) <= high + (99,):
        raise SourceError(f"--{name} {given} is not known", where=f"--{name}",
                          why=f"versions from {known[0]} to {known[1]} are", fix="give the version that trained the "
                          "policy, e.g. " + ("0.5.1" if name == "lerobot" else "4.53"))


def _since(path: Path, config: dict, steps: Iterable[dict]) -> Iterator[Hint]:
    kind = config.get("type")
    for key, version in (_CONFIG_KEYS | _CONFIG_KEYS_OF.get(kind, {})).items():
        if key in config:
            yield Hint(version, CONFIG, f'"{key}"')
    training = _training(path)
    for key, version in _TRAINING_KEYS.items():
        if key in training:
            yield Hint(version, TRAINING, f'"{key}"')
    for name in sorted({s["registry_name"] for s in steps} & set(_STEPS)):
        file = PREPROCESSOR if name.startswith("relative") else POSTPROCESSOR
        yield Hint(_STEPS[name], file, f'step "{name}"')
    if _embeddings(path, config) >= _EMBEDDINGS:
        yield Hint(CHANGED, WEIGHTS, "both embed_tokens.weight and lm_head.weight")


def _before(path: Path, config: dict, steps: Iterable[dict] | None) -> Hint | None:
    """The earliest version that would have written something that is missing."""
    if steps is None:
        return Hint("0.4.0", PREPROCESSOR, "missing, the statistics are among the weights")
    if len(_embeddings(path, config)) == 1:
        return Hint(CHANGED, WEIGHTS, "one of embed_tokens.weight and lm_head.weight")
    if training := _training(path):
        missing = [(k, v) for k, v in _TRAINING_KEYS.items() if k not in training]
        if missing:
            return Hint(missing[0][1], TRAINING, f'no "{missing[0][0]}"')
    missing = [(k, v) for k, v in _CONFIG_KEYS.items() if k not in config]
    return Hint(missing[0][1], CONFIG, f'no "{missing[0][0]}"') if missing else None


def _embeddings(path: Path, config: Mapping) -> set[str]:
    """Which of _EMBEDDINGS the weights contain, as LeRobot saves them, with the prefix "model."."""
    if config.get("type") not in ("pi0", "pi05") or not (path / WEIGHTS).is_file():
        return set()
    prefixes = (f"model.{_PALIGEMMA}", _PALIGEMMA)
    names = names_of_tensors(path / WEIGHTS)
    found = {n: {e for e in _EMBEDDINGS if n + e in names} for n in prefixes}
    return found[prefixes[0]] or (found[prefixes[1]] if found[prefixes[1]] == _EMBEDDINGS else set())


def _is_openpis(path: Path, config: Mapping) -> bool:
    """Whether the weights are named as openpi's conversion names them, not as LeRobot does."""
    return (config.get("type") in ("pi0", "pi05") and (path / WEIGHTS).is_file()
            and any(n.startswith(_PALIGEMMA) for n in names_of_tensors(path / WEIGHTS)))


def _training(path: Path) -> dict:
    """The configuration of the training; {} if it is missing or unreadable: nothing else depends on it."""
    try:
        return read_json(path / TRAINING)
    except SourceError:
        return {}
