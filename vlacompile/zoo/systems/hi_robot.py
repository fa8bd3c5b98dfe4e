"""Hi Robot: a vision-language model that writes an atomic command about once per second, and pi0, which obeys it.

Both levels see the same cameras, each at its own time: the high level's frames are sources of their own, so that its
stages can run in a lane of their own (the recipe's [[lane]]) while pi0 goes on with the command written last.
"""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.settings import settings_of
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.paligemma import END, SMALL, PaliGemma, PaliGemmaSizes
from vlacompile.zoo.blocks.prefix_lm import ACTIONS, OpenPi, openpi_sizes, pixels
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
HIGH_HZ, LENGTH, MOST, EXECUTED = 1.0, 96, 25, 25  # tokens of the user's prompt, of a command
BEGIN, LINE = 2, 108  # the tokens <bos> and "\\n"


def high(camera: str) -> str:
    return f"high.image.{camera}"


class HiRobot(nn.Module):
    """Frames u8 [1,side,side,3] for either level, the user's prompt as token ids i64 [1,L] with their mask, state f32
    [1,14] and noise f32 [1,50,32] -> {"action": f32 [1,50,14], "command": i64 [1,25]}."""

    def __init__(self, planner: PaliGemma, robot: OpenPi):
        super().__init__()
        self.planner, self.robot = planner, robot

    def command(self, **inputs: torch.Tensor) -> torch.Tensor:
        prefix = torch.cat([*(self.planner.see(pixels(inputs[high(c)])) for c in CAMERAS),
                            self.planner.embed(inputs[TOKENS])], 1)
        images = torch.ones(1, prefix.shape[1] - inputs[MASK].shape[1], dtype=torch.bool)
        return self.planner.write(prefix, torch.cat([images, inputs[MASK]], 1), MOST)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        command = self.command(**inputs)
        told = dict(zip((TOKENS, MASK), prompt(command), strict=True))
        return {**self.robot(**{**inputs, **told}), "command": command}


def prompt(command: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The low level's prompt and its mask [1,27]: the beginning, the command up to its end, a line break. Both levels
    have one tokenizer, so that ids go straight across."""
    said = ((command == END) | (command == 0)).to(torch.int64).cumsum(-1) == 0
    count, places = said.sum(-1, keepdim=True), torch.arange(MOST + 2)[None]
    begin, gap = torch.full_like(command[:, :1], BEGIN), torch.zeros_like(command[:, :1])
    ids = torch.cat([begin, command, gap], 1)
    mask = places <= count + 1
    return torch.where(places == count + 1, LINE, torch.where(mask, ids, 0)), mask


def make(variant: str, size: str) -> Policy:
    tiny = size == TINY
    planner = PaliGemma(SMALL if tiny else PaliGemmaSizes())
    settings = settings_of("pi0", CheckpointOptions(openpi_config="pi0_aloha"), "pi0_aloha", {})
    model = HiRobot(planner, OpenPi(openpi_sizes("pi0", size), settings)).eval()
    side, vocabulary = model.robot.vision.patch_embed.proj.kernel_size[0], planner.language_model.sizes.vocabulary
    side *= round(model.robot.vision.tokens**0.5)
    length = 16 if tiny else LENGTH
    tokens, mask = words(length, vocabulary, length * 2 // 3)
    example = {high(c): frame(side) for c in CAMERAS} | {TOKENS: tokens, MASK: mask}
    sources = {high(c): Source("observation", HIGH_HZ) for c in CAMERAS} | {TOKENS: TASK, MASK: TASK}
    example |= {f"image.{c}": frame(side) for c in CAMERAS}
    example |= {STATE: torch.rand(1, settings.robot.state), NOISE: torch.randn(1, settings.horizon, ACTIONS)}
    sources |= {f"image.{c}": FRAME for c in CAMERAS} | {STATE: FRAME, NOISE: STEP}
    return Policy("hi_robot", model, sources, example, outputs=("action", "command"), execute=EXECUTED)


_PAPER = "arXiv 2502.19417"
SYSTEM = System(
    "Hi Robot", 2025, 17, _PAPER, make,
    says=("a vision-language model writes a command once per second, and pi0 obeys it",),
    assumptions=(
        "the high level is PaliGemma 3B with weights of its own, on three cameras of 224 pixels and 96 tokens of what "
        "the user said; it writes at most 25 tokens",
        "the low level is pi0 with the command as its prompt, in openpi's configuration pi0_aloha",
        "the words spoken to the user are part of the same text, and not split from the command",
    ),
    published=(Published("rate", 1, "commands/s, about", "the high level", _PAPER),
               Published("rate", 50, "actions/s", "of the robot", _PAPER)))
