"""OpenVLA-OFT: all actions of a chunk in one pass that attends both ways, and OFT+, whose vision is modulated by the
instruction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vlacompile.frontends.openvla.components import joined_files
from vlacompile.frontends.openvla.heads import ResidualMlp, TwoLayers, features, film_condition
from vlacompile.frontends.openvla.model import VisionLanguage
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, STATE, TASK, TOKENS, frame
from vlacompile.zoo.blocks.statistics import Bounds
from vlacompile.zoo.checkpoint import Checkpoint
from vlacompile.zoo.system import TINY, Published, System
from vlacompile.zoo.systems.openvla import DINO, SIGLIP, SMALL, Sizes, moments, prompt, unread

EPSILON = 1e-8
CAMERAS = ("image.primary", "image.wrist", "image.wrist_2")


@dataclass(frozen=True)
class Robot:
    """film: whether the instruction modulates both vision transformers (OFT+)."""

    cameras: int
    chunk: int
    action: int
    state: int
    film: bool = False


ROBOTS = {"libero": Robot(2, 8, 7, 8), "aloha": Robot(3, 25, 14, 14), "plus": Robot(3, 25, 14, 14, True)}


class OpenVlaOft(VisionLanguage):
    """Frames u8 [1,side,side,3], the prompt's token ids i64 [1,L] with their mask, state f32 [1,S] -> {"action": f32
    [1,H,D]}. The statistics of LIBERO are quantiles, those of ALOHA extremes; the formula is the same."""

    def __init__(self, sizes: Sizes, robot: Robot):
        width = sizes.llama.width
        towers = [replace(t, film=width if robot.film else None) for t in sizes.towers]
        super().__init__(towers, sizes.llama, sizes.projector, False, moments(DINO, SIGLIP))
        self.robot, self.cameras = robot, CAMERAS[: robot.cameras]
        self.head = ResidualMlp(robot.action * width, width, robot.action)
        self.proprio = TwoLayers(robot.state, width)
        self.action_bounds = Bounds(robot.action, EPSILON, kept=1 if robot.action == 7 else 0)
        self.state_bounds = Bounds(robot.state, EPSILON)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        text, mask, robot = self.embed(inputs[TOKENS]), inputs[MASK], self.robot
        condition = film_condition(self.language_model.model, text, mask) if robot.film else None
        state = self.proprio(self.state_bounds.normalise(inputs[STATE]).clamp(-1.0, 1.0))
        extra = [*(self.see(inputs[c], condition) for c in self.cameras), state[:, None]]
        places = torch.zeros(1, robot.chunk * robot.action, text.shape[-1])
        seen = features(self.language_model.model, text[:, :1], extra, text[:, 1:], mask, places)
        return {"action": self.action_bounds.unnormalise(self.head(seen.reshape(1, robot.chunk, -1)))}


def make(variant: str, size: str) -> Policy:
    sizes, robot = SMALL if size == TINY else Sizes(), ROBOTS[variant]
    model = OpenVlaOft(sizes, robot).eval()
    example = {**{c: frame(sizes.towers[0].side) for c in model.cameras}, STATE: torch.randn(1, robot.state) * 0.5,
               **prompt(sizes.llama.vocabulary - sizes.padding)}
    sources = {**dict.fromkeys(model.cameras, FRAME), STATE: FRAME, TOKENS: TASK, MASK: TASK}
    return Policy(f"openvla_oft_{variant}", model, sources, example)


_PAPER = "arXiv 2502.19645"
SYSTEM = System(
    "OpenVLA-OFT, OFT+", 2025, 11, f"{_PAPER}, github.com/moojink/openvla-oft 213c5ff", make,
    says=(
        "LIBERO: two cameras, chunks of 8",
        "ALOHA: three cameras, chunks of 25",
        "OFT+ on ALOHA: the instruction modulates vision"),
    code="MIT",
    weights="MIT, and Llama 2's community licence", variants=tuple(ROBOTS),
    checkpoint=Checkpoint(unread=unread(Sizes()), statistics=("action_bounds.*", "state_bounds.*"),
                          files=lambda path, module: joined_files(path)),
    published=(
        Published("success", 97.1, "% of LIBERO episodes", "mean of four suites", _PAPER),
        Published("rate", 71.4, "actions/s", "LIBERO, two images and state, A100", _PAPER),
        Published("rate", 77.9, "actions/s", "OFT+ on ALOHA, A100", _PAPER),
        Published("memory", 16, "GB, at least", "GPU memory of inference, bf16", "the repository's README"),
    ))
