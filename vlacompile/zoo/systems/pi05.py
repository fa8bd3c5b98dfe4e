"""pi0.5: pi0 whose expert reads the time in its norms, and whose prompt holds the state.

The authors' system first writes the text of a subtask, of which the low level's prompt is made. openpi releases the low
level; `subtask` is both, with one set of weights, as the paper has them: what writes the text is read from the paper
alone. The high level's frames are sources of their own, so that it can run on its own clock in a lane (`[[lane]]`).
"""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.settings import settings_of
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.paligemma import END
from vlacompile.zoo.blocks.prefix_lm import ACTIONS, OPENPI, OpenPi, openpi_policy, openpi_sizes, pixels
from vlacompile.zoo.system import TINY, Published, System

# libero's prompt holds no state, so that it changes with the task alone
CONFIGURATIONS = {"base": "pi05_aloha", "droid": "pi05_droid", "libero": "pi05_libero", "subtask": "pi05_aloha"}
EXECUTED = {"base": 25, "droid": 8, "libero": 5}  # of openpi's clients: examples/aloha_real, droid, libero
ASKED, ASKED_MASK = "task.tokens", "task.mask"  # the prompt of the high level
HIGH_HZ, LENGTH, MOST, BEGIN = 1.0, 64, 24, 2  # tokens of the task and of a subtask; the token <bos>


def high(camera: str) -> str:
    return f"high.{camera}"


class Pi05(nn.Module):
    """Frames u8 [1,side,side,3] for either level, the task as token ids i64 [1,64] with their mask, what follows the
    subtask in the low level's prompt, which holds the state, as ids i64 [1,L] with their mask, state f32 [1,14] and
    noise f32 [1,50,32] -> {"action": f32 [1,50,14], "subtask": i64 [1,24]}: its ids, and zeros behind its end."""

    def __init__(self, robot: OpenPi):
        super().__init__()
        self.robot = robot

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = [pixels(inputs[high(c)]) for c in self.robot.cameras]
        subtask = self.robot.write(seen, inputs[ASKED], inputs[ASKED_MASK], MOST)
        said = ((subtask == END) | (subtask == 0)).to(torch.int64).cumsum(-1) == 0
        begin = torch.full_like(subtask[:, :1], BEGIN)
        # padding between the two texts is seen by no token and counts in no position
        told = {TOKENS: torch.cat([begin, torch.where(said, subtask, 0), inputs[TOKENS]], 1),
                MASK: torch.cat([torch.ones_like(begin, dtype=torch.bool), said, inputs[MASK]], 1)}
        return {**self.robot(**{**inputs, **told}), "subtask": subtask}


def make(variant: str, size: str) -> Policy:
    if variant == "subtask":
        return _with_subtask(size)
    return openpi_policy("pi05", CONFIGURATIONS[variant], size, EXECUTED[variant])


def _with_subtask(size: str) -> Policy:
    name, tiny = CONFIGURATIONS["subtask"], size == TINY
    sizes, settings = openpi_sizes("pi05", size), settings_of("pi05", CheckpointOptions(openpi_config=name), name, {})
    model = Pi05(OpenPi(sizes, settings)).eval()
    cameras, side = model.robot.cameras, sizes.vision.side
    lengths = (16, 20) if tiny else (LENGTH, settings.prompt_tokens)
    asked, told = (words(n, sizes.vocabulary, n * 2 // 3) for n in lengths)
    example = {**{high(c): frame(side) for c in cameras}, ASKED: asked[0], ASKED_MASK: asked[1],
               **{c: frame(side) for c in cameras}, TOKENS: told[0], MASK: told[1],
               STATE: torch.rand(1, settings.robot.state), NOISE: torch.randn(1, settings.horizon, ACTIONS)}
    sources = {**{high(c): Source("observation", HIGH_HZ) for c in cameras}, ASKED: TASK, ASKED_MASK: TASK,
               **dict.fromkeys((*cameras, TOKENS, MASK, STATE), FRAME), NOISE: STEP}
    return Policy("pi05_subtask", model, sources, example, outputs=("action", "subtask"), execute=EXECUTED["base"])


_PAPER = "arXiv 2504.16054"
SYSTEM = System(
    "pi0.5", 2025, 18, f"{_PAPER}, github.com/Physical-Intelligence/openpi 15a9616", make,
    says=(
        "the low level on ALOHA",
        "the low level on DROID",
        "the low level on LIBERO",
        "both levels on ALOHA: it writes its own subtask first"),
    code="Apache-2.0",
    weights="Apache-2.0 and Gemma's terms", variants=tuple(CONFIGURATIONS), checkpoint=OPENPI,
    published=(
        Published("latency", 124, "ms", "two cameras, int8, Jetson AGX Orin 64 GB", "FlashRT's README"),
        Published("latency", 193, "ms, at least", "two cameras, bf16, Jetson AGX Orin 64 GB", "FlashRT's README"),
    ))
