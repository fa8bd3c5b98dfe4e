"""DiVLA: Qwen2-VL reads three cameras and the instruction, writes down what it is about to do, and a diffusion U-Net
acts on the features of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.transformer import added
from vlacompile.policy.iterate import iterate
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, NOISE, STATE, STEP, TASK, TOKENS, frame, words
from vlacompile.zoo.blocks.language_model import LanguageSizes, causal
from vlacompile.zoo.blocks.noise_schedule import cosine_ddim
from vlacompile.zoo.blocks.qwen_vl import QWEN2_2B, QwenVisionSizes, QwenVl, grid_of
from vlacompile.zoo.blocks.reasoning import ReasoningInjection
from vlacompile.zoo.blocks.unet1d import ConditionalUnet
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.top", "image.left", "image.right")
HORIZON, ACTION, STATES, TEMPLATE, LENGTH, REASONED = 16, 14, 14, 15, 48, 24
TRAINED, STEPS = 100, 10


@dataclass(frozen=True)
class Sizes:
    """sections: frequencies of a head for time, row and column. reasoned: the largest number of words that are written.
    end: the word that ends them."""

    vision: QwenVisionSizes
    language: LanguageSizes = QWEN2_2B
    sections: tuple[int, int, int] = (16, 24, 24)
    frame: tuple[int, int] = (240, 320)
    reasoned: int = REASONED
    end: int = 151645  # <|im_end|>
    widths: tuple[int, ...] = (256, 512, 1024)
    step: int = 256


LARGE = Sizes(QwenVisionSizes(grid_of(240, 320), QWEN2_2B.width))
SMALL = Sizes(QwenVisionSizes(grid_of(48, 80), 32, 32, 2, 2, 64),
              replace(QWEN2_2B, width=32, depth=2, heads=2, kv_heads=1, hidden=64, vocabulary=100), (2, 3, 3), (48, 80),
              12, 29, (16, 32, 64), 16)


class Written(NamedTuple):
    """next: the word that comes next i64 [1,1]; last: the one before. said i64 [1,N], hidden f32 [1,N,width]: what was
    written, of which there is what `counted` bool [1,N] says. cache: its keys and values."""

    next: torch.Tensor
    last: torch.Tensor
    said: torch.Tensor
    hidden: torch.Tensor
    counted: torch.Tensor
    cache: tuple[tuple[torch.Tensor, torch.Tensor], ...]


class DiVla(nn.Module):
    """Frames u8 [1,H,W,3] of three cameras, token ids i64 [1,48] of what follows them with their mask, state f32
    [1,14], noise f32 [1,16,14] -> {"action": f32 [1,16,14], "reasoning": i64 [1,N]}, end of text included."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.sampler = sizes, cosine_ddim(TRAINED, STEPS, 1.0)
        width = sizes.language.width
        self.vlm = QwenVl(sizes.vision, sizes.language, sizes.sections, TEMPLATE)
        self.inject = ReasoningInjection(width)
        self.unet = ConditionalUnet(ACTION, width, STATES, sizes.widths, sizes.step)
        for name, count in (("state_mean", STATES), ("action_min", ACTION)):
            self.register_buffer(name, torch.randn(count) * 0.1)
        for name, count in (("state_std", STATES), ("action_max", ACTION)):
            self.register_buffer(name, 1 + torch.rand(count))

    def reason(self, frames: list[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor):
        """(hidden states of what was asked and their mask, those of what was written and their mask, its words, with
        its end and zeros behind it)"""
        model, count = self.vlm.model, self.sizes.reasoned
        x, positions = self.vlm.prompt(frames, tokens, mask)
        whole = torch.cat([torch.ones(1, x.shape[1] - tokens.shape[1], dtype=torch.bool), mask], 1)
        cache = SlotCache(count)
        asked = model(x, causal(whole)[0], positions, cache)
        used = mask.sum(-1, keepdim=True)
        last = (torch.arange(tokens.shape[1])[None] == used - 1).to(asked.dtype)[:, None]
        word = self.word(last @ asked[:, -tokens.shape[1]:])
        begin = positions[:, -tokens.shape[1]:].max(1, keepdim=True).values + 1  # [3,1]
        here, steps = torch.eye(count, dtype=torch.bool), torch.arange(count)
        so_far = torch.ones(count, count, dtype=torch.bool).tril()

        def step(k: int, state: Written) -> Written:
            cache.writing, cache.made = here[k], list(state.cache)
            seen = added(torch.cat([whole, so_far[k][None]], 1)[:, None])
            hidden = model(model.embed_tokens(state.next), seen, begin + steps[k], cache)
            return Written(self.word(hidden), state.next, torch.where(here[k], state.next, state.said),
                           torch.where(here[k][None, :, None], hidden, state.hidden), state.counted | here[k],
                           tuple(cache.made))

        state = Written(word, torch.full_like(word, -1), torch.zeros(1, count, dtype=torch.long),
                        torch.zeros(1, count, asked.shape[-1]), torch.zeros(1, count, dtype=torch.bool),
                        tuple(cache.made))
        state = iterate(step, state, count, until=lambda s: s.last == self.sizes.end)
        return (asked, whole), (state.hidden, state.counted), state.said

    def word(self, hidden: torch.Tensor) -> torch.Tensor:
        """The most probable word i64 [1,1] after a hidden state [1,1,width]; the head has the embedding's weights."""
        return nn.functional.linear(hidden, self.vlm.model.embed_tokens.weight).argmax(-1)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        asked, written, said = self.reason([inputs[c] for c in CAMERAS], inputs[TOKENS], inputs[MASK])
        seen = self.inject(asked, written)
        state = (inputs[STATE] - self.state_mean) / self.state_std
        action = self.sampler.denoise(lambda x, t: self.unet(x, t, seen, state), inputs[NOISE])
        return {"action": (action + 1) / 2 * (self.action_max - self.action_min) + self.action_min, "reasoning": said}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else LARGE
    tokens, mask = words(LENGTH, sizes.language.vocabulary, 17)
    example = {TOKENS: tokens, MASK: mask, **{c: frame(*sizes.frame) for c in CAMERAS},
               STATE: torch.randn(1, STATES), NOISE: torch.randn(1, HORIZON, ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, FRAME), STATE: FRAME, NOISE: STEP}
    return Policy("divla", DiVla(sizes).eval(), sources, example, outputs=("action", "reasoning"))


_PAPER = "arXiv 2412.03293"
SYSTEM = System(
    "DiffusionVLA (DiVLA)", 2024, 13, f"{_PAPER}; facts of juruobenruo/DexVLA fc21a82", make,
    says=("Qwen2-VL writes what it is about to do, and a diffusion U-Net acts on it",),
    code="custom, non-commercial", weights="custom, non-commercial",
    unread="their non-commercial code was not run, and nothing shows that this module gives their actions with them",
    assumptions=(
        "the code's licence is non-commercial: written from its facts, never compared with its output",
        "Qwen2-VL's own vision transformer, as the released code has it; the paper names SigLIP",
        "reasoning is written anew for every observation, up to the end of the text or 24 words (the original: 256)",
        "15 fixed words before the frames, up to 48 words of instruction",
    ),
    published=(
        Published("rate", 82, "actions/s", "A6000, 2 B; of a chunk, presumably", _PAPER),
        Published("success", 63.7, "%", "bin picking, 102 unseen objects", _PAPER),
    ))
