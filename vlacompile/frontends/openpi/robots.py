"""The robots of openpi's policies: which inputs and outputs a policy of each has (src/openpi/policies/)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ALOHA = "aloha"


@dataclass(frozen=True)
class Robot:
    """cameras: its names of the model's base, left wrist and right wrist images, as many as it has. state, action:
    numbers of each. joints: of which actions are offsets to the state, where they are."""

    cameras: tuple[str, ...]
    state: int
    action: int
    joints: tuple[bool, ...]


ROBOTS = {
    ALOHA: Robot(("cam_high", "cam_left_wrist", "cam_right_wrist"), 14, 14, ((True,) * 6 + (False,)) * 2),
    "droid": Robot(("exterior_image_1_left", "wrist_image_left"), 8, 8, (True,) * 7 + (False,)),
    "libero": Robot(("image", "wrist_image"), 8, 7, (True,) * 6 + (False,)),
}

# ALOHA's joints and grippers in the conventions of the runtime that the base models were trained with
# (src/openpi/policies/aloha_policy.py: the gripper's linear position becomes an angle, normalised).
_FLIPPED = (1, -1, -1, 1, 1, 1, 1) * 2
_GRIPPERS = (False,) * 6 + (True,)
_LINEAR, _ANGLES, _COMMANDS = (0.01844, 0.05800), (0.5476, 1.6296), (-0.6213, 1.4910)
_ARM, _HORN = 0.036, 0.022  # metres


def to_internal(state: torch.Tensor) -> torch.Tensor:
    """ALOHA's state [1,14] -> as the base models know it."""
    low, high = _LINEAR
    linear = state * (high - low) + low
    ratio = (_HORN**2 + linear**2 - _ARM**2) / (2 * _HORN * linear)
    angle = (torch.arcsin(ratio.clamp(-1.0, 1.0)) - _ANGLES[0]) / (_ANGLES[1] - _ANGLES[0])
    return torch.where(torch.tensor(_GRIPPERS * 2), angle, state * torch.tensor(_FLIPPED, dtype=torch.float32))


def from_internal(actions: torch.Tensor) -> torch.Tensor:
    """[1,H,14] as the base models give them -> ALOHA's."""
    angle = (actions + _ANGLES[0] - _COMMANDS[0]) / (_COMMANDS[1] - _COMMANDS[0])
    return torch.where(torch.tensor(_GRIPPERS * 2), angle, actions * torch.tensor(_FLIPPED, dtype=torch.float32))
