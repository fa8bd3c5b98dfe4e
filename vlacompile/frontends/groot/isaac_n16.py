"""GR00T N1.6 as NVIDIA's code saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.groot import n16
from vlacompile.frontends.groot.eagle3 import Eagle3
from vlacompile.frontends.groot.read import Opened, Weights
from vlacompile.frontends.groot.robot import Robot
from vlacompile.frontends.groot.saved_processor import (
    PROCESSOR,
    Saved,
    frames_of,
    open_saved,
    opened_of,
    robot_of,
    sizes_of,
)
from vlacompile.frontends.lerobot.files import read_json
from vlacompile.frontends.resize import Size
from vlart.errors import SourceError

ENVIRONMENT = "lerobot061"
LAYERS = "backbone.model.language_model.model.layers."
EAGLE = "nvidia/Eagle-Block2A-2B-v2"
LETTERBOX = {"yes": True, "no": False}


def open_files(path: Path, config: Mapping, held: Weights, options: CheckpointOptions) -> Opened:
    """Raises SourceError."""
    options.require_only(str(path), "embodiment", "frame", "letterbox")
    saved = open_saved(path, options)
    cameras = frames_of(saved, options)
    robot = robot_of(saved, cameras, _letterbox(saved, cameras, options), EAGLE)
    defaults = {"action_horizon": 16, "max_state_dim": saved.settings.get("max_state_dim", 29), "select_layer": 16,
                "max_action_dim": saved.settings.get("max_action_dim", 29), "state_dropout_prob": 0.0}
    sizes = sizes_of(saved, config, held.shapes, defaults, LAYERS)
    return opened_of(path, "groot_n16", saved, robot, sizes, lambda: _make(sizes, robot), n16.sampler, n16.tokens_of)


def _letterbox(saved: Saved, cameras: Mapping[str, Size], options: CheckpointOptions) -> bool:
    """Whether frames get black bars. NVIDIA's code does so where torchvision prepares them; where OpenCV does, since
    92f523d of February 2026, and the files do not say which code it was. Raises SourceError."""
    if options.letterbox is not None and options.letterbox not in LETTERBOX:
        raise SourceError(f'--letterbox "{options.letterbox}" is neither yes nor no', where="--letterbox",
                          why="it says whether frames get black bars", fix="--letterbox yes, or --letterbox no")
    if not saved.settings.get("use_albumentations", False):
        return True
    oblong = next((c for c, (height, width) in cameras.items() if height != width), None)
    if oblong is not None and options.letterbox is None:
        raise SourceError("how frames that are no squares are prepared is not known",
                          where=f"{saved.folder / PROCESSOR}: use_albumentations",
                          why=f'those of "{oblong}" get black bars in NVIDIA\'s code since February 2026 (92f523d), '
                              "not before, and no file says which code trained the policy",
                          fix="build with --letterbox yes if it was the later one, or --letterbox no")
    return LETTERBOX[options.letterbox or "yes"]


def _make(sizes: Mapping, robot: Robot) -> nn.Module:
    from lerobot.policies.groot.groot_n1_7 import GR00T_N1_7_DEFAULTS, GR00TN17ActionHead, GR00TN17Config
    from transformers.initialization import no_init_weights

    where = n16.asset(robot, "config.json")
    known = GR00TN17Config(**{k: v for k, v in sizes.items() if k in GR00T_N1_7_DEFAULTS})
    known.vl_self_attention_cfg = None
    model = nn.Module()
    model.backbone = nn.Module()
    with no_init_weights():  # some initialisers look at numbers, which a model without content has not
        model.backbone.model = Eagle3(read_json(where), sizes["select_layer"], str(where))
    model.action_head = GR00TN17ActionHead(known)
    if sizes["state_dropout_prob"] > 0:  # of the training; inference never drops the state
        model.action_head.mask_token = nn.Parameter(torch.zeros(1, 1, known.input_embedding_dim))
    return model
