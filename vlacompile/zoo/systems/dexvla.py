"""DexVLA: Qwen2-VL reads three cameras, the instruction and the sub-task in words; its features condition a diffusion
transformer of a billion parameters.

The sub-task is a source of its own: the original lets the same language model write it, as `zoo:divla` does, and keeps
it for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.dit import DitSizes, ScaleDp
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.language_model import LanguageSizes
from vlacompile.zoo.blocks.noise_schedule import cosine_ddim
from vlacompile.zoo.blocks.qwen_vl import QWEN2_2B, QwenVisionSizes, QwenVl, grid_of
from vlacompile.zoo.blocks.reasoning import ReasoningInjection
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.top", "image.left", "image.right")
SUBTASK, SUBTASK_MASK = "subtask", "subtask_mask"
HORIZON, EXECUTED, ACTION, STATES, TEMPLATE, LENGTH, REASONED = 50, 16, 14, 14, 15, 48, 48
TRAINED, STEPS = 100, 10
SCALE_DP_H = DitSizes(1280, 32, 16)


@dataclass(frozen=True)
class Sizes:
    """sections: frequencies of a head for time, row and column."""

    vision: QwenVisionSizes
    language: LanguageSizes = QWEN2_2B
    sections: tuple[int, int, int] = (16, 24, 24)
    frame: tuple[int, int] = (240, 320)
    expert: DitSizes = SCALE_DP_H
    combined: int = 1024
    sines: int = 256


LARGE = Sizes(QwenVisionSizes(grid_of(240, 320), QWEN2_2B.width))
SMALL = Sizes(QwenVisionSizes(grid_of(48, 80), 32, 32, 2, 2, 64),
              replace(QWEN2_2B, width=32, depth=2, heads=2, kv_heads=1, hidden=64, vocabulary=100), (2, 3, 3), (48, 80),
              DitSizes(32, 3, 2), 64, 32)


class DexVla(nn.Module):
    """Frames u8 [1,H,W,3] of three cameras; token ids i64 [1,48] with their masks: what follows the frames up to the
    answer, and the answer; state f32 [1,14], noise f32 [1,50,14] -> {"action": f32 [1,50,14]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sampler = cosine_ddim(TRAINED, STEPS, 1.0)
        self.vlm = QwenVl(sizes.vision, sizes.language, sizes.sections, TEMPLATE)
        self.inject = ReasoningInjection(sizes.language.width)
        self.expert = ScaleDp(sizes.expert, ACTION, HORIZON, sizes.language.width, STATES, sizes.combined, sizes.sines)
        for name, count in (("state_mean", STATES), ("action_min", ACTION)):
            self.register_buffer(name, torch.randn(count) * 0.1)
        for name, count in (("state_std", STATES), ("action_max", ACTION)):
            self.register_buffer(name, 1 + torch.rand(count))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        said, heard = inputs[MASK], inputs[SUBTASK_MASK]
        hidden, whole = self.vlm.read([inputs[c] for c in CAMERAS], torch.cat([inputs[TOKENS], inputs[SUBTASK]], 1),
                                      torch.cat([said, heard], 1))
        asked = whole.shape[1] - REASONED
        seen = self.inject((hidden[:, :asked], whole[:, :asked]), (hidden[:, asked:], whole[:, asked:]))
        state = (inputs[STATE] - self.state_mean) / self.state_std
        action = self.sampler.denoise(lambda x, t: self.expert(x, t, seen, state), inputs[NOISE])
        return {"action": (action + 1) / 2 * (self.action_max - self.action_min) + self.action_min}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else LARGE
    tokens, mask = words(LENGTH, sizes.language.vocabulary, 17)
    subtask, heard = words(REASONED, sizes.language.vocabulary, 12)
    example = {TOKENS: tokens, MASK: mask, SUBTASK: subtask, SUBTASK_MASK: heard,
               **{c: frame(*sizes.frame) for c in CAMERAS}, STATE: torch.randn(1, STATES),
               NOISE: torch.randn(1, HORIZON, ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, SUBTASK: TASK, SUBTASK_MASK: TASK, **dict.fromkeys(CAMERAS, FRAME),
               STATE: FRAME, NOISE: STEP}
    return Policy("dexvla", DexVla(sizes).eval(), sources, example, execute=EXECUTED)


_PAPER = "arXiv 2502.05855"
SYSTEM = System(
    "DexVLA", 2025, 14, f"{_PAPER}; facts of juruobenruo/DexVLA fc21a82", make,
    says=("Qwen2-VL and a diffusion transformer; the sub-task in words is an input",),
    code="custom, non-commercial",
    weights="custom, non-commercial",
    unread="their non-commercial code was not run, and nothing shows that this module gives their actions with them",
    assumptions=(
        "the code's licence is non-commercial: written from its facts, never compared with its output; names of the "
        "expert's weights are those of DiT's code",
        "the sub-task is a source, not decoded here; 15 fixed words before the frames, up to 48 words of instruction "
        "and 48 of sub-task",
        "one embodiment: the expert has one head per embodiment, and the one in use is kept",
    ),
    published=(
        Published("rate", 60, "actions/s", "A6000, one card", _PAPER),
        Published("parameters", 952, "M", "diffusion expert, its published configuration", "ScaleDP-H"),
    ))
