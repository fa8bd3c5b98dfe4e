"""pi0 as LeRobot up to 0.3 had it: another port of the same model, with its own names, settings and padding.

LeRobot 0.4 replaced it. Its weights are those of openpi's model under the names that transformers before 4.52 gave
them; frames are padded on the left and at the top, not on both sides; its bf16 computations become fp32 here.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from vlacompile.frontends.lerobot.checkpoint import Checkpoint, Tokenization
from vlart.errors import SourceError

TOKENIZER = "google/paligemma-3b-pt-224"  # in its code, not in its checkpoints
_RENAMED = {"num_steps": "num_inference_steps", "resize_imgs_with_padding": "image_resolution"}
_DROPPED = {"attention_implementation", "proj_width", "train_state_proj", "use_cache", "adapt_to_pi_aloha",
            "use_delta_joint_actions_aloha"}
_MOVED = (
    (re.compile(r"\.paligemma\.language_model\.lm_head"), ".paligemma.lm_head"),
    (re.compile(r"\.paligemma\.language_model\.model"), ".paligemma.model.language_model"),
    (re.compile(r"\.paligemma\.(vision_tower|multi_modal_projector)"), r".paligemma.model.\1"),
)


def tokenizer(config: dict) -> Tokenization:
    return Tokenization(TOKENIZER, config["tokenizer_max_length"], "right", newline=True)


def settings(checkpoint: Checkpoint) -> dict:
    """config.json with the names of today. Raises SourceError for what today's code cannot compute."""
    old, where = checkpoint.config, str(checkpoint.path / "config.json")
    if old.get("adapt_to_pi_aloha"):
        raise SourceError("adapt_to_pi_aloha is not supported", where=where,
                          why="LeRobot 0.4 dropped its changes of joint signs and gripper units",
                          fix="fine-tune the policy with a later LeRobot, on joints in openpi's convention")
    if not old.get("resize_imgs_with_padding"):
        raise SourceError("resize_imgs_with_padding is not set", where=where,
                          why="frames were given to the vision tower at their own size",
                          fix="set it to the size that the frames had in training")
    kept = {_RENAMED.get(name, name): value for name, value in old.items() if name not in _DROPPED}
    return kept | {"chunk_size": old["n_action_steps"]}  # as many as its denoising loop made


def names(loaded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names of today."""
    found = {}
    for name, tensor in loaded.items():
        for pattern, place in _MOVED:
            name = pattern.sub(place, name)
        found[name] = tensor
    return found


def pad_at_the_left_and_top(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[1,H,W,C] in [0, 1], its proportions kept, the rest 0."""
    ratio = max(images.shape[2] / width, images.shape[1] / height)
    size = int(images.shape[1] / ratio), int(images.shape[2] / ratio)
    inside = nn.functional.interpolate(images.movedim(-1, 1), size=size, mode="bilinear", align_corners=False)
    return nn.functional.pad(inside, (width - size[1], 0, height - size[0], 0)).movedim(1, -1)
