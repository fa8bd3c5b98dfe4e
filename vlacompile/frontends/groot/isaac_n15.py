"""GR00T N1.5 as NVIDIA's code saves it: config.json with all sizes but Eagle's, experiment_cfg/metadata.json with the
statistics of each robot. How numbers and frames are prepared is in the training's code: see modality.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.groot import n15
from vlacompile.frontends.groot.asked import embodiment, groups_said
from vlacompile.frontends.groot.frames import resized_in_floats
from vlacompile.frontends.groot.groups import Group, decoded_actions, example_state, normalised_state, spans_of
from vlacompile.frontends.groot.modality import Modality, read_modality
from vlacompile.frontends.groot.read import Opened, Weights
from vlacompile.frontends.groot.robot import formalised
from vlacompile.frontends.lerobot.files import read_json
from vlart.errors import SourceError

ENVIRONMENT = "lerobot"
METADATA = "experiment_cfg/metadata.json"
NUMBERS = {"new_embodiment": 31, "oxe_droid": 17, "agibot_genie1": 26, "gr1": 24}  # in NVIDIA's code alone
EAGLE = n15.Eagle("lerobot/eagle2hg-processor-groot-n1p5", "the backbone of GR00T N1.5, Eagle 2.5")
_AGAIN = "copy the directory that the training wrote again, completely"


def open_files(path: Path, config: Mapping, held: Weights, options: CheckpointOptions) -> Opened:
    """Raises SourceError."""
    options.require_only(str(path), "embodiment", "modality")
    where, head = path / METADATA, config.get("action_head_cfg")
    if not isinstance(head, Mapping) or not isinstance(config.get("backbone_cfg"), Mapping):
        raise SourceError("config.json has no sizes of the model", where=str(path / "config.json"),
                          why="action_head_cfg and backbone_cfg are needed", fix=_AGAIN)
    if not where.is_file():
        raise SourceError(f"{METADATA} is missing", where=str(path),
                          why="it has the statistics of actions and state; the robot would get normalised numbers",
                          fix=_AGAIN)
    robots = read_json(where)
    tag = embodiment(where, robots, options)
    if tag not in NUMBERS:
        raise SourceError(f'the embodiment "{tag}" has no number', where=str(where),
                          why=f"NVIDIA's code has numbers for {', '.join(sorted(NUMBERS))}; they say which of the "
                              "weights are this robot's", fix="build a checkpoint of one of those")
    told = read_modality(options.modality, where, robots[tag])
    steps = told.steps or int(head.get("action_horizon", config.get("action_horizon", 16)))
    for kind, groups, most in (("state", told.state, head.get("max_state_dim", 64)),
                               ("action", told.actions, head.get("max_action_dim", head.get("action_dim", 32)))):
        if (size := _size(groups, kind)) > most:
            raise SourceError(f"the {kind} is larger than the model's", where=str(where),
                              why=f"{size} numbers of {most}", fix="name fewer groups in --modality FILE")
    settings = {**config, "action_horizon": steps, "action_head_cfg": {**head, "action_horizon": steps}}
    return Opened(path, "groot_n15", tag, NUMBERS[tag], told.cameras, example_state(told.state), steps,
                  (1, steps, int(head.get("action_dim", config.get("action_dim", 32)))),
                  lambda: n15.model_of(settings, EAGLE),
                  lambda model: _sampler(model, told, int(head.get("max_state_dim", 64))),
                  lambda text: n15.tokens_of(EAGLE, len(told.cameras), formalised(text) if told.formal else text),
                  {"state": groups_said(spans_of(told.state)), "action": groups_said(spans_of(told.actions))})


def _size(groups: list[Group], kind: str) -> int:
    return sum(g.scale.normalise(torch.zeros(g.scale.size)).numel() if kind == "state" else g.scale.size
               for g in groups)


def _sampler(model: nn.Module, told: Modality, size: int):
    if (EAGLE.side, EAGLE.side) != told.size:
        raise SourceError(f"frames of {told.size[0]}x{told.size[1]} are not covered", where="--modality: video.size",
                          why=f"Eagle takes one tile of {EAGLE.side}x{EAGLE.side}", fix="give the size of VideoResize")
    sample = n15.sampler(model, EAGLE, len(told.cameras))

    def actions(frames, tokens, mask, state, embodiment, noise) -> torch.Tensor:
        ready = [resized_in_floats(frames[c], told.crop, told.size) for c in told.cameras]
        out = sample(ready, tokens, mask, normalised_state(told.state, state, size), embodiment, noise)
        return decoded_actions(told.actions, out, state)

    return actions
