"""Infers which LeRobot wrote a checkpoint, from keys in its files, and whether its meaning has changed since.

LeRobot stores no version. A key that some version introduced shows that it, or a later one, wrote the file. The
differences were measured one by one: the same weights in both versions, on the same inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlacompile.errors import SourceError
from vlacompile.frontends.lerobot.files import POSTPROCESSOR, PREPROCESSOR, TRAINING, WEIGHTS, names_of_tensors

OURS = "0.4.4"
CONFIG = "config.json"

# Keys that a version added to config.json, for all policy types or for one; the key is written whatever its value.
_CONFIG_KEYS = {"pretrained_revision": "0.6.0"}
_CONFIG_KEYS_OF = {
    "diffusion": {"gradient_checkpointing": "0.6.1"},
    "groot": dict.fromkeys(("action_decode_transform", "model_params_fp32", "num_inference_timesteps",
                            "relative_exclude_joints", "rtc_ramp_rate", "tune_top_llm_layers", "tune_vlln",
                            "use_flash_attention", "use_relative_actions"), "0.6.0"),
    "pi0": dict.fromkeys(("action_feature_names", "relative_exclude_joints", "use_relative_actions"), "0.5.1"),
    "pi05": dict.fromkeys(("action_feature_names", "relative_exclude_joints", "use_relative_actions"), "0.5.1"),
}
_TRAINING_KEYS = {"cudnn_deterministic": "0.5.0", "env_eval_freq": "0.6.0",
                  "dataloader_multiprocessing_context": "0.6.1"}
_STEPS = {"relative_actions_processor": "0.5.1", "absolute_actions_processor": "0.5.1"}
_PALIGEMMA = "paligemma_with_expert.paligemma."

# {policy type: (version, change)}: since that version the type computes something else.
_PI = "its token embedding is not tied to the head, and frames that are not square are padded with a different grey"
_CHANGED = {
    "groot": ("0.6.0", "it is GR00T N1.7, another model than N1.5"),
    "pi0": ("0.5.0", f"{_PI} (actions differ by 3 %)"),
    "pi05": ("0.5.0", f"the state is in the prompt without padding, {_PI} (actions differ by 10 %)"),
    "smolvla": ("0.5.0", "its transformers 5 numbers the patches of a frame 0, 1, ..., 31 where 4.57 has 0, 0, 1, "
                "..., 30 (actions differ by 1 %)"),
}


@dataclass(frozen=True)
class Hint:
    """`file` contains `what`, which no LeRobot before `version` writes."""

    version: str
    file: str
    what: str


def check_version(path: Path, config: dict, steps: Iterable[dict]) -> None:
    """steps: of both processors. Raises SourceError for a checkpoint of a version in which this type computes something
    else, or that has keys which LeRobot 0.4.4 refuses."""
    kind, hints = config.get("type"), list(_hints(path, config, steps))
    if not hints:
        return
    newest = max(hints, key=lambda h: _number(h.version))
    since, difference = _CHANGED.get(kind, (None, ""))
    what = f"the checkpoint was written by LeRobot {newest.version} or later; checkpoints of {OURS} are read"
    if since is not None and _number(newest.version) >= _number(since):
        raise SourceError(what, where=f"{path / newest.file}: {newest.what}",
                          why=f"the type has changed in LeRobot {since}: {difference}",
                          fix=f"fine-tune it with LeRobot {OURS}, or write a factory that returns "
                              f"vlacompile.Policy(...) "
                              "around the policy of that LeRobot")
    keys = [h.what for h in hints if h.file == CONFIG]
    if keys:
        raise SourceError(what, where=f"{path / CONFIG}: {', '.join(keys)}",
                          why=f"LeRobot {OURS}, whose code builds the policy, has no such key",
                          fix="remove these keys from config.json; "
                              "a policy of this type computes the same without them")


def _hints(path: Path, config: dict, steps: Iterable[dict]) -> Iterator[Hint]:
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
    if kind in ("pi0", "pi05") and (path / WEIGHTS).is_file():
        own = {n.removeprefix("model.").removeprefix(_PALIGEMMA) for n in names_of_tensors(path / WEIGHTS)
               if n.removeprefix("model.").startswith(_PALIGEMMA)}
        if {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= own:
            yield Hint("0.5.0", WEIGHTS, "both embed_tokens.weight and lm_head.weight")


def _training(path: Path) -> dict:
    """The configuration of the training; {} if it is missing or unreadable: nothing else depends on it."""
    try:
        found = json.loads((path / TRAINING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
