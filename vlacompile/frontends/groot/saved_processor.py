"""What N1.6 and N1.7 save beside the model: processor_config.json, statistics.json and embodiment_id.json, or in
processor/ as a training leaves them.

config.json leaves out what was a default of the code that wrote it, and the defaults changed: such sizes are read off
the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.groot.asked import embodiment, frame_sizes, groups_said
from vlacompile.frontends.groot.frames import Geometry
from vlacompile.frontends.groot.groups import example_state, spans_of
from vlacompile.frontends.groot.read import Opened
from vlacompile.frontends.groot.robot import Robot, Tokens
from vlacompile.frontends.groot.statistics import action_groups, state_groups, state_spans
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.resize import Size
from vlart.errors import SourceError

PROCESSOR, STATISTICS, NUMBERS = "processor_config.json", "statistics.json", "embodiment_id.json"
HEAD = "action_head."
_AGAIN = "copy the directory that the training wrote again, completely"
_FACTORY = "write a factory that returns vlacompile.Policy(...) around the model's inference function"
NEWEST = [0]


@dataclass(frozen=True)
class Saved:
    """folder: of the files. settings: processor_kwargs. robot, statistics: of the embodiment `tag`, whose number in the
    weights is `number`."""

    folder: Path
    settings: Mapping
    tag: str
    number: int
    robot: Mapping
    statistics: Mapping


def open_saved(path: Path, options: CheckpointOptions) -> Saved:
    """Raises SourceError."""
    folder = path / "processor" if not (path / PROCESSOR).is_file() and (path / "processor").is_dir() else path
    files = {name: _file(folder / name) for name in (PROCESSOR, STATISTICS, NUMBERS)}
    settings = files[PROCESSOR].get("processor_kwargs") or {}
    robots, statistics = settings.get("modality_configs") or {}, files[STATISTICS]
    tag = embodiment(folder / PROCESSOR, robots, options)
    if tag not in statistics:
        raise SourceError(f'statistics of the embodiment "{tag}" are missing', where=str(folder / STATISTICS),
                          why=f"it has those of {', '.join(sorted(statistics)) or 'none'}; actions would reach the "
                              "robot in wrong units", fix="use processor_config.json and statistics.json of one "
                                                          "training")
    if tag not in files[NUMBERS]:
        raise SourceError(f'the embodiment "{tag}" has no number', where=str(folder / NUMBERS),
                          why="it says which of the weights are this robot's", fix=_AGAIN)
    return Saved(folder, settings, tag, int(files[NUMBERS][tag]), robots[tag], statistics[tag])


def _file(path: Path) -> dict:
    if not path.is_file():
        raise SourceError(f"{path.name} is missing", where=str(path.parent),
                          why="it says how the policy's numbers and frames are prepared", fix=_AGAIN)
    return read_json(path)


def frames_of(saved: Saved, options: CheckpointOptions) -> dict[str, Size]:
    """The cameras and the sizes of their frames. Raises SourceError."""
    cameras = (saved.robot.get("video") or {}).get("modality_keys") or ()
    return frame_sizes(saved.folder / PROCESSOR, cameras, options)


def robot_of(saved: Saved, cameras: Mapping[str, Size], letterbox: bool, model: str) -> Robot:
    """letterbox: whether frames get black bars. model: the backbone, if the files do not name it. Raises
    SourceError."""
    settings, robot, where = saved.settings, saved.robot, saved.folder / STATISTICS
    percentiles = bool(settings.get("use_percentiles", False))
    state = state_groups(where, saved.statistics, robot, percentiles, bool(settings.get("clip_outliers", True)),
                         bool(settings.get("apply_sincos_state_encoding", False)))
    actions = action_groups(where, saved.statistics, robot, bool(settings.get("use_relative_action", False)),
                            percentiles)
    moments = _moments(saved)
    steps = len((robot.get("action") or {}).get("delta_indices") or ())
    if not steps or not cameras:
        raise SourceError("the robot has no actions or no cameras", where=str(saved.folder / PROCESSOR),
                          why="delta_indices of action and modality_keys of video say which", fix=_AGAIN)
    return Robot(cameras, _geometry(saved, letterbox), bool(settings.get("formalize_language", True)), state, actions,
                 steps, settings.get("model_name", model), f"{PROCESSOR}: model_name", moments)


def _moments(saved: Saved) -> tuple[int, ...]:
    """Of the frames; the state is the newest."""
    found = {kind: (saved.robot.get(kind) or {}).get("delta_indices", NEWEST) for kind in ("video", "state")}
    if found["state"] != NEWEST:
        raise SourceError("the policy takes a history of state", where=f"{saved.folder / PROCESSOR}: state",
                          why=f"delta_indices are {found['state']}; only the newest is read", fix=_FACTORY)
    moments = found["video"]
    if (not isinstance(moments, list) or not moments or not all(type(m) is int for m in moments) or moments[-1] != 0
            or sorted(set(moments)) != moments):
        raise SourceError("the frames that the policy sees do not end with the newest",
                          where=f"{saved.folder / PROCESSOR}: video", why=f"delta_indices are {moments}; numbers that "
                          "rise to 0 are read", fix=_FACTORY)
    return tuple(moments)


def _geometry(saved: Saved, letterbox: bool) -> Geometry:
    settings = saved.settings
    pairs = [tuple(settings[k]) if settings.get(k) else None for k in ("image_target_size", "image_crop_size")]
    geometry = Geometry("opencv" if settings.get("use_albumentations", False) else "torchvision", *pairs,
                        settings.get("shortest_image_edge"), settings.get("crop_fraction"), letterbox)
    if (geometry.library == "torchvision" and None in pairs) or not (geometry.shortest or geometry.target):
        raise SourceError("the sizes of the policy's frames are missing", where=str(saved.folder / PROCESSOR),
                          why="image_target_size and image_crop_size, or shortest_image_edge with use_albumentations",
                          fix=_AGAIN)
    return geometry


def sizes_of(saved: Saved, config: Mapping, shapes: Mapping[str, list[int]], defaults: Mapping, layers: str) -> dict:
    """The model's settings; what config.json leaves out, from the weights, then from `defaults`. layers: what the names
    of the language model's layers begin with. Raises SourceError for a robot that has no weights."""
    known = {"vl_self_attention_cfg": None, "max_num_embodiments": 32, **defaults}
    known |= {k: v for k, v in config.items() if k not in ("architectures", "model_type", "transformers_version")}
    encoder, state = shapes.get(f"{HEAD}action_encoder.W1.W"), shapes.get(f"{HEAD}state_encoder.layer1.W")
    if encoder and state:
        known |= {k: n for k, n in (("max_num_embodiments", encoder[0]), ("max_action_dim", encoder[1]),
                                    ("max_state_dim", state[1])) if k not in config}
    if shapes and "select_layer" not in config:
        known["select_layer"] = _count(shapes, layers)
    if shapes and "diffusion_model_cfg" not in config:
        known["diffusion_model_cfg"] = {
            "positional_embeddings": None, "num_layers": _count(shapes, f"{HEAD}model.transformer_blocks."),
            "num_attention_heads": 32, "attention_head_dim": 48, "norm_type": "ada_norm", "dropout": 0.2,
            "final_dropout": True, "output_dim": 1024, "interleave_self_attention": True}
    if saved.number >= known["max_num_embodiments"]:
        raise SourceError(f'the embodiment "{saved.tag}" has no weights', where=str(saved.folder / NUMBERS),
                          why=f"its number is {saved.number}; the model has {known['max_num_embodiments']}",
                          fix="use embodiment_id.json and weights of one training")
    return known


def _count(shapes: Mapping[str, list[int]], prefix: str) -> int:
    return 1 + max((int(m[1]) for n in shapes if (m := re.match(re.escape(prefix) + r"(\d+)\.", n))), default=-1)


def refuse(saved: Saved, name: str, why: str) -> None:
    """Raises SourceError if the processor is set so."""
    if saved.settings.get(name):
        raise SourceError(f"{name} is not covered", where=str(saved.folder / PROCESSOR), why=why, fix=_FACTORY)


def opened_of(path: Path, name: str, saved: Saved, robot: Robot, sizes: Mapping, make: Callable[[], nn.Module],
              sampler: Callable[[nn.Module, Robot], Callable], tokens: Callable[[Robot, str], Tokens]) -> Opened:
    spans = state_spans(saved.folder / STATISTICS, saved.statistics, saved.robot)
    return Opened(path, name, saved.tag, saved.number, robot.cameras, example_state(robot.state), robot.steps,
                  (1, sizes["action_horizon"], sizes["max_action_dim"]), make, lambda model: sampler(model, robot),
                  lambda text: tokens(robot, text),
                  {"state": groups_said(spans), "action": groups_said(spans_of(robot.actions))}, robot.history)
