"""GR00T N1.7 as NVIDIA's code saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.groot import n17
from vlacompile.frontends.groot.read import Opened, Weights
from vlacompile.frontends.groot.saved_processor import frames_of, open_saved, opened_of, refuse, robot_of, sizes_of

ENVIRONMENT = "lerobot061"
LAYERS = "backbone.model.model.language_model.layers."
COSMOS = "nvidia/Cosmos-Reason2-2B"


def open_files(path: Path, config: Mapping, held: Weights, options: CheckpointOptions) -> Opened:
    """Raises SourceError."""
    options.require_only(str(path), "embodiment", "frame")
    saved = open_saved(path, options)
    for name in ("exclude_state", "use_mean_std"):
        refuse(saved, name, "it changes what the policy gets of the state")
    # its evaluation letterboxes, whatever letter_box_transform says
    robot = robot_of(saved, frames_of(saved, options), True, COSMOS)
    defaults = {"action_horizon": saved.settings.get("max_action_horizon", 40),
                "max_state_dim": saved.settings.get("max_state_dim", 132),
                "max_action_dim": saved.settings.get("max_action_dim", 132)}
    sizes = sizes_of(saved, config, held.shapes, defaults, LAYERS)
    return opened_of(path, "groot_n17", saved, robot, sizes, lambda: _make(sizes), n17.sampler, n17.tokens_of)


def _make(sizes: Mapping) -> nn.Module:
    from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config

    settings = GR00TN17Config(**sizes)
    settings.use_flash_attention = settings.load_bf16 = False
    settings.vl_self_attention_cfg = sizes["vl_self_attention_cfg"]
    return GR00TN17(settings, transformers_loading_kwargs={"local_files_only": True}, load_backbone_weights=False)
