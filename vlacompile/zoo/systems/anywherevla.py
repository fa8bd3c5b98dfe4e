"""AnywhereVLA: SmolVLA manipulates, a detector looks for the object, and goals to explore are chosen from a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.convnet import Detector
from vlacompile.zoo.blocks.frontiers import SETTINGS, UNKNOWN, Frontiers, FrontierSettings
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.smolvla import HORIZON, PADDED, SMOLVLA, TINY_SMOLVLA, SmolVla, SmolVlaSizes
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System

ARM, NAVIGATION, TARGET, GRID, ROBOT = "image.arm", "image.navigation", "target", "grid", "robot"
JOINTS, LENGTH, CLASSES, KEPT = 6, 48, 80, 100
COMMANDS_HZ, DETECTIONS_HZ, GOALS_HZ = 20.0, 10.0, 0.25


@dataclass(frozen=True)
class Sizes:
    """arm, navigation: (height, width) of the frames. seen: the size that the detector takes them at. grid: cells of a
    side of the map."""

    policy: SmolVlaSizes = SMOLVLA
    arm: tuple[int, int] = (720, 1280)
    navigation: tuple[int, int] = (720, 1280)
    seen: tuple[int, int] = (384, 640)
    widths: tuple[int, ...] = (32, 64, 128, 256, 448)
    depths: tuple[int, ...] = (1, 3, 6, 6)
    grid: int = 150
    frontiers: FrontierSettings = SETTINGS


SMALL = Sizes(TINY_SMOLVLA, (36, 64), (36, 64), (64, 96), (4, 4, 8, 8, 8), (1, 1, 1, 1), 40,
              FrontierSettings(0.25, 4.5, 1.5, gain=6.0))


class AnywhereVla(nn.Module):
    """Two frames, token ids i64 [1,48] with their mask, joints f32 [1,6], the wanted class i64 [1], a map i32 [1,n,n]
    and the robot's place on it f32 [1,2] -> {"action": f32 [1,50,6], "boxes": [1,100,6], "present": f32 [1]: the best
    score of the wanted class, "goals": [1,15,5]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.policy = SmolVla(sizes.policy)
        self.detector = Detector(sizes.widths, sizes.depths, CLASSES, KEPT)
        self.frontiers = Frontiers(sizes.grid, sizes.frontiers)
        for name in ("state", "action"):
            self.register_buffer(f"{name}_mean", torch.randn(JOINTS) * 20)
            self.register_buffer(f"{name}_std", torch.rand(JOINTS) * 20 + 10)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        state = (inputs[STATE] - self.state_mean) / (self.state_std + 1e-8)
        actions = self.policy([unit(inputs[ARM])], inputs[TOKENS], inputs[MASK], F.pad(state, (0, PADDED - JOINTS)),
                              inputs[NOISE])
        seen = F.interpolate(unit(inputs[NAVIGATION]), self.sizes.seen, mode="bilinear", align_corners=False)
        boxes, scores = self.detector(seen)
        return {"action": actions[..., :JOINTS] * self.action_std + self.action_mean, "boxes": boxes,
                "present": scores.amax(1).gather(1, inputs[TARGET][:, None])[:, 0],
                "goals": self.frontiers(inputs[GRID], inputs[ROBOT])}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(LENGTH, sizes.policy.language.vocabulary, 11)
    example = {TOKENS: tokens, MASK: mask, ARM: frame(*sizes.arm), STATE: torch.randn(1, JOINTS) * 20,
               NOISE: torch.randn(1, HORIZON, PADDED), NAVIGATION: frame(*sizes.navigation),
               TARGET: torch.tensor([39]), GRID: example_map(sizes.grid), ROBOT: torch.zeros(1, 2)}
    own_clock, of_the_map = Source("observation", DETECTIONS_HZ), Source("observation", GOALS_HZ)
    sources = {TOKENS: TASK, MASK: TASK, TARGET: TASK, ARM: FRAME, STATE: FRAME, NOISE: STEP, NAVIGATION: own_clock,
               GRID: of_the_map, ROBOT: of_the_map}
    return Policy("anywherevla", AnywhereVla(sizes).eval(), sources, example,
                  outputs=("action", "boxes", "present", "goals"), execute=HORIZON)


def example_map(side: int) -> torch.Tensor:
    """A room with walls whose door leads to what is unknown."""
    grid = torch.full((1, side, side), UNKNOWN, dtype=torch.int32)
    low, high = side // 5, side - side // 5
    grid[:, low: high, low: high] = 100
    grid[:, low + 1: high - 1, low + 1: high - 1] = 0
    grid[:, side // 2 - 4: side // 2 + 4, high - 1: high + 2] = 0
    return grid


_PAPER, _CODE = "arXiv 2509.21006", "github.com/SelfAI-research/AnywhereVLA"
SYSTEM = System(
    "AnywhereVLA", 2025, 22, f"{_PAPER} and {_CODE}; its policy: SmolVLA, arXiv 2506.01844 and LeRobot 0.4.4", make,
    says=("SmolVLA with a detector and the choice of goals on a map",),
    code="Apache-2.0", weights="Apache-2.0 (lerobot/smolvla_base)",
    checkpoint=Checkpoint({"policy.": "model."}, unread=("normalize_*", "unnormalize_*"),
                          statistics=("state_*", "action_*"), untrained=("detector.*",)),
    assumptions=(
        "the detector is a stand-in for the original's YOLOv12s, whose licence is the AGPL: a single-stage detector "
        "of as many parameters without suppression of neighbours, at 384x640, 80 classes, 100 boxes",
        "goals to explore are single cells of the border of the unknown, the nearest first and 1 m apart; the "
        "original takes means of connected borders of at least 20 cells. Its map has 0.1 m cells here",
        "the detector runs at 10 Hz; goals are chosen every 4 s as in the original's configuration; its map, "
        "navigation and approach planner are not part of the policy",
    ),
    published=(
        Published("success", 46, "% of tasks", "the whole system on a Jetson Orin NX 16 GB and a NUC", _PAPER),
        Published("parameters", 450, "M", "SmolVLA", "arXiv 2506.01844"),
    ))
