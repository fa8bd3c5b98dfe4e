"""What is in the code of a GR00T N1.5 training (its DataConfig) and not in its files: a JSON file, `--modality FILE`.

{"video": {"keys": ["ego_view"], "crop": 0.95, "size": [224, 224]},
 "state": {"keys": ["arm", "gripper"], "modes": {"arm": "min_max", "gripper": "min_max"}},
 "action": {"keys": ["arm", "gripper"], "modes": {"arm": "min_max", "gripper": "binary"}, "steps": 16},
 "formalize_language": false}

keys: in the order of video_concat_order and the like. modes: normalization_modes, "sin_cos" where
StateActionSinCosTransform applies, "none" without either. steps: length of action_indices, if not the model's own
horizon. Rotations that are converted (target_rotations) are not covered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vlacompile.frontends.finite_numbers import finite_numbers, is_below
from vlacompile.frontends.groot.groups import AS_IS, BINARY, MEAN_STD, MIN_MAX, SIN_COS, Group, Scale
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.resize import Size
from vlart.errors import SourceError, nearest

NEEDED = {"min_max": ("min", "max"), "q99": ("q01", "q99"), "mean_std": ("mean", "std"), "binary": ("min", "max"),
          "sin_cos": ("min", "max"), "none": ("min", "max")}
_KEYS = {"": ("video", "state", "action", "formalize_language"), "video": ("keys", "crop", "size"),
         "state": ("keys", "modes"), "action": ("keys", "modes", "steps")}
_DOCS = "write it as docs/frontends.md shows, from the DataConfig of the training"


@dataclass(frozen=True)
class Modality:
    """crop: share of the sides of a frame that is kept. steps: None: as many as the model's."""

    cameras: dict[str, Size]
    crop: float
    size: Size
    state: list[Group]
    actions: list[Group]
    steps: int | None
    formal: bool


def read_modality(path: str | None, where: Path, metadata: Mapping) -> Modality:
    """where, metadata: a robot's entry of metadata.json. Raises SourceError."""
    kinds = metadata.get("modalities") or {}
    if path is None:
        there = "; ".join(f"{kind}: {', '.join(kinds.get(kind) or ())}" for kind in ("video", "state", "action"))
        raise SourceError("which cameras and numbers the policy takes is not known", where=str(where),
                          why=f"the training's code said which, in which order and how normalised, of {there}",
                          fix="build with --modality FILE (docs/frontends.md)")
    told = read_json(Path(path))
    for part, known in _KEYS.items():
        table = told if not part else told.get(part)
        strange = [k for k in table if k not in known] if isinstance(table, Mapping) else [part]
        if strange:
            raise SourceError(f'"{strange[0]}" is not understood', where=f"{path}: {part or 'its keys'}",
                              why=nearest(strange[0], known), fix=_DOCS)
    video, action = told["video"], told["action"]
    sizes = {name: _resolution(where, kinds, name) for name in _names(path, told, "video", kinds)}
    share, size = video.get("crop"), video.get("size")
    if not isinstance(share, float | int) or not 0 < share <= 1 or not _pair(size):
        raise SourceError("how frames are prepared is not said", where=f"{path}: video",
                          why=f'"crop" is {share}, the scale of VideoCrop; "size" is {size}, the height and width of '
                              "VideoResize", fix=_DOCS)
    steps = action.get("steps")
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise SourceError(f'"steps" is {steps}', where=f"{path}: action", why="it is a number of actions", fix=_DOCS)
    groups = {kind: [_group(path, where, metadata, told, kind, n) for n in _names(path, told, kind, kinds)]
              for kind in ("state", "action")}
    return Modality(sizes, float(share), (size[0], size[1]), groups["state"], groups["action"], steps,
                    bool(told.get("formalize_language", False)))


def _pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value)


def _names(path: str, told: Mapping, kind: str, kinds: Mapping) -> list[str]:
    names = (told.get(kind) or {}).get("keys")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise SourceError(f'"keys" of {kind} are missing', where=f"{path}: {kind}",
                          why=f"the robot has {', '.join(kinds.get(kind) or ())}", fix=_DOCS)
    strange = [n for n in names if n not in (kinds.get(kind) or {})]
    if strange:
        raise SourceError(f'the robot has no {kind} "{strange[0]}"', where=f"{path}: {kind}",
                          why=nearest(strange[0], list(kinds.get(kind) or ())), fix="name what metadata.json has, or "
                                                                                   "choose another --embodiment")
    return names


def _resolution(where: Path, kinds: Mapping, name: str) -> Size:
    size = (kinds["video"][name] or {}).get("resolution")
    if not _pair(size):
        raise SourceError(f'the size of the frames of "{name}" is missing', where=f"{where}: modalities.video",
                          why=f"resolution is {size}", fix="copy the training's experiment_cfg again, completely")
    return size[1], size[0]  # metadata.json has the width first


def _group(path: str, where: Path, metadata: Mapping, told: Mapping, kind: str, name: str) -> Group:
    modes = (told[kind].get("modes") or {})
    known = [m for m in NEEDED if kind == "state" or m != "sin_cos"]
    mode = modes.get(name)
    if mode not in known:
        raise SourceError(f'the mode of {kind} "{name}" is {mode}', where=f"{path}: {kind}.modes",
                          why=f"one of {', '.join(known)} is; numbers would be in wrong units", fix=_DOCS)
    entry = ((metadata.get("statistics") or {}).get(kind) or {}).get(name) or {}
    size = math.prod(metadata["modalities"][kind][name].get("shape") or (0,))
    numbers = [entry.get(s) for s in NEEDED[mode]]
    if any(not isinstance(n, list) or len(n) != size or not all(type(v) in (int, float) for v in n) for n in numbers):
        raise SourceError(f'statistics of {kind} "{name}" are missing or do not fit it', where=f"{where}: statistics",
                          why=f"{' and '.join(NEEDED[mode])} of {size} numbers are needed",
                          fix="copy the training's experiment_cfg again, completely")
    if any(finite_numbers(n) is None for n in numbers if n):
        raise SourceError(f'statistics of {kind} "{name}" hold NaN or infinity', where=f"{where}: statistics",
                          why="they were never filled from a dataset", fix="save the dataset's statistics again")
    first, second = (torch.tensor(n, dtype=torch.float32) for n in numbers)
    if any(map(is_below, second.tolist(), [0.0] * size if mode == "mean_std" else first.tolist())):
        raise SourceError(f'statistics of {kind} "{name}" are damaged', where=f"{where}: statistics",
                          why=f"{NEEDED[mode][1]} is below {0 if mode == 'mean_std' else NEEDED[mode][0]}",
                          fix="save the dataset's statistics again")
    varies = second != 0 if mode == "mean_std" else first != second
    kinds = {"min_max": MIN_MAX, "q99": MIN_MAX, "mean_std": MEAN_STD, "binary": BINARY, "sin_cos": SIN_COS,
             "none": AS_IS}
    return Group(name, Scale(kinds[mode], first, second, varies, clip=mode == "q99", keeps=mode != "min_max",
                             limits=False))
