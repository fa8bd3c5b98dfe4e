"""RT-2: a vision-language model that writes actions as eight words out of 256: whether to end, and seven numbers.

Variant ed: encoder and decoder, as PaLI-X: patches and words attend to each other, and a decoder reads them. Variant
plm: a decoder alone, as PaLM-E: patches and words attend to each other, and words that are written follow them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.transformer import added
from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer
from vlacompile.policy.iterations import iterations
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.inputs import FRAME, MASK, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes
from vlacompile.zoo.blocks.t5 import T5, T5Sizes, encode
from vlacompile.zoo.system import TINY, System

IMAGE, LENGTH, BINS, SPOKEN = "image", 32, 256, 8
ENCODER_DECODER, PREFIX = "ed", "plm"
LOW = (-1.0, -1.0, -1.0, -math.pi / 2, -math.pi / 2, -math.pi / 2, -1.0)


@dataclass(frozen=True)
class Sizes:
    vision: VisionSizes
    t5: T5Sizes
    language: LanguageSizes


GEMMA = LanguageSizes(2048, 18, 8, 1, 16384, 257216, 256, plus_one=True, activation=lambda x: F.gelu(
    x, approximate="tanh"))
LARGE = Sizes(VisionSizes(768, 12, 12, 3072, 16, 256, final=True), T5Sizes(), GEMMA)
SMALL = Sizes(VisionSizes(32, 2, 2, 64, 16, 32, final=True), T5Sizes(32, 2, 2, 64, 600),
              LanguageSizes(32, 2, 2, 1, 64, 600, 16, plus_one=True, activation=GEMMA.activation))


class Rt2(nn.Module):
    """A frame u8 [1,side,side,3], token ids i64 [1,32] of the question with their mask -> {"action": f32 [1,1,8]}:
    position, rotation, gripper, and from 0 to 1 whether the episode ends."""

    def __init__(self, vision: VisionSizes, width: int, vocabulary: int):
        super().__init__()
        self.vision, self.project = VisionTransformer(vision), nn.Linear(vision.width, width)
        self.register_buffer("chosen", torch.randperm(vocabulary)[:BINS])  # ids of the words that are actions

    def see(self, image: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(patches and words [1,n,width], their mask bool [1,n])"""
        seen = self.project(self.vision(unit(image, 0.5, 0.5)))
        return torch.cat([seen, text], 1), torch.cat([torch.ones(1, seen.shape[1], dtype=torch.bool), mask], 1)

    def bins(self, logits: torch.Tensor) -> torch.Tensor:
        """The most probable action word [1,1] of logits [1,1,vocabulary], by its number."""
        return logits[..., self.chosen].argmax(-1)

    def actions(self, said: torch.Tensor) -> torch.Tensor:
        """Numbers i64 [1,8] -> [1,1,8]. The first says whether the episode ends."""
        low = torch.tensor(LOW)
        moved = said[:, 1:].float() / (BINS - 1) * (-2 * low) + low
        return torch.cat([moved, said[:, :1].float() / (BINS - 1)], -1)[:, None]


class EncoderDecoder(Rt2):
    def __init__(self, sizes: Sizes):
        super().__init__(sizes.vision, sizes.t5.width, sizes.t5.vocabulary)
        self.language = T5(sizes.t5)
        # with a larger one every word would be followed by itself, whatever is seen
        nn.init.normal_(self.language.shared.weight, std=sizes.t5.width**-0.5)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        model = self.language
        x, mask = self.see(inputs[IMAGE], model.shared(inputs[TOKENS]), inputs[MASK])
        read, kept = encode(model.encoder, x, mask), model.empty(SPOKEN)
        here, places = torch.eye(SPOKEN, dtype=torch.bool), torch.arange(SPOKEN)[:, None]
        word, said = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, SPOKEN, dtype=torch.long)
        for k in iterations(SPOKEN):
            hidden = model.step(model.shared(word), here[k], places[k], kept, read, mask)
            number = self.bins(F.linear(hidden, model.shared.weight))
            word, said = self.chosen[number], torch.where(here[k], number, said)
        return {"action": self.actions(said)}


class PrefixDecoder(Rt2):
    def __init__(self, sizes: Sizes):
        super().__init__(sizes.vision, sizes.language.width, sizes.language.vocabulary)
        self.language = LanguageModel(sizes.language)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        model, scale = self.language, self.language.sizes.width**0.5
        text = model.embed_tokens(inputs[TOKENS]) * scale
        x, mask = self.see(inputs[IMAGE], text, inputs[MASK])
        positions, cache = (mask.cumsum(-1) - 1).clamp(min=0), SlotCache(SPOKEN - 1)
        hidden = model(x, added(mask[:, None].expand(1, x.shape[1], -1)), positions, cache)
        count = mask.sum(-1, keepdim=True)
        last = (torch.arange(x.shape[1])[None] == count - 1).to(x.dtype)[:, None]
        here, steps = torch.eye(SPOKEN, dtype=torch.bool), torch.arange(SPOKEN - 1)
        so_far = torch.ones(SPOKEN - 1, SPOKEN - 1, dtype=torch.bool).tril()
        number = self.bins(F.linear(last @ hidden, model.embed_tokens.weight))
        said = torch.where(here[0], number, torch.zeros(1, SPOKEN, dtype=torch.long))
        for k in iterations(SPOKEN - 1):
            cache.writing = here[k, : SPOKEN - 1]
            seen = added(torch.cat([mask, so_far[k][None]], 1)[:, None])
            word = model.embed_tokens(self.chosen[number]) * scale
            number = self.bins(F.linear(model(word, seen, count + steps[k], cache), model.embed_tokens.weight))
            said = torch.where(here[k + 1], number, said)
        return {"action": self.actions(said)}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else LARGE
    both = variant == ENCODER_DECODER
    model = (EncoderDecoder if both else PrefixDecoder)(sizes)
    tokens, mask = words(LENGTH, (sizes.t5 if both else sizes.language).vocabulary, 15)
    example = {IMAGE: frame(sizes.vision.side), TOKENS: tokens, MASK: mask}
    return Policy(f"rt_2_{variant}", model.eval(), {IMAGE: FRAME, TOKENS: TASK, MASK: TASK}, example)


SYSTEM = System(
    "RT-2", 2023, 9, "arXiv 2307.15818", make,
    says=("encoder and decoder, as PaLI-X", "a decoder alone, as PaLM-E"),
    variants=(ENCODER_DECODER, PREFIX),
    assumptions=(
        "the originals (PaLI-X of 5 and 55 B, PaLM-E of 12 B) are closed and too large for a board; these are models "
        "of the same kind: ViT-B/16 with T5-base, and with a Gemma of 2 B",
        "one frame of 256 pixels without history, up to 32 words of the question",
        "eight words out of 256, the end of the episode first; a number is the lower edge of its bin, in RT-1's ranges",
        "the 256 action words are drawn at random",
    ))
