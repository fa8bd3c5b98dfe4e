"""Helix: a vision-language model (S2) hands a latent vector to a fast visuomotor policy (S1) on another clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.convnet import STRIDES, ConvPyramid
from vlacompile.zoo.blocks.encoder_decoder import DecoderLayer, EncoderLayer
from vlacompile.zoo.blocks.inputs import IMAGENET, MASK, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes, causal
from vlacompile.zoo.blocks.siglip import SO400M, Siglip, pixel_shuffle
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.system import TINY, Published, System

SLOW_IMAGE, SLOW_STATE, FAST_IMAGE, FAST_STATE = "image.slow", "state.slow", "image.fast", "state.fast"
SLOW, FAST = (TOKENS, MASK, SLOW_IMAGE, SLOW_STATE), (FAST_IMAGE, FAST_STATE)
SLOW_HZ, FAST_HZ, MAX_AGE_MS = 8.0, 200.0, 500
JOINTS, HORIZON, TEXT, LATENT, SHUFFLE = 35, 10, 32, 512, 2
QWEN2 = LanguageSizes(3584, 28, 28, 4, 18944, 152064, base=1e6, bias=True)


@dataclass(frozen=True)
class Sizes:
    """S1: side of its frame, widths and depths of its convolutions; width, layers of its encoder and of its decoder,
    heads, hidden."""

    vision: TowerSizes = SO400M
    language: LanguageSizes = QWEN2
    latent: int = LATENT
    side: int = 224
    widths: tuple[int, ...] = (64, 128, 256, 512, 960)
    depths: tuple[int, ...] = (2, 3, 6, 4)
    width: int = 512
    layers: int = 6
    heads: int = 8
    hidden: int = 2048


SMALL = Sizes(TowerSizes(32, 2, 4, 64, 14, 56),
              replace(QWEN2, width=32, depth=2, heads=4, kv_heads=2, hidden=64, vocabulary=100), 24, 64,
              (4, 4, 8, 8, 8), (1, 1, 1, 1), 32, 2, 4, 64)


class Reasoner(nn.Module):
    """S2: token ids i64 [1,32] with their mask, a frame, the state -> a latent f32 [1,latent]. The instruction comes
    first, so that its keys and values stay as long as it does."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.language.width
        self.vision, self.language = Siglip(sizes.vision), LanguageModel(sizes.language)
        self.see = nn.Linear(sizes.vision.width * SHUFFLE**2, width)
        self.feel, self.summarise = nn.Linear(JOINTS, width), nn.Linear(width, sizes.latent)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, image: torch.Tensor, state: torch.Tensor) \
            -> torch.Tensor:
        seen = self.see(pixel_shuffle(self.vision(unit(image, 0.5, 0.5)), SHUFFLE))
        x = torch.cat([self.language.embed_tokens(tokens), seen, self.feel(state)[:, None]], 1)
        there = torch.cat([mask, torch.ones(1, x.shape[1] - TEXT, dtype=torch.bool)], 1)
        return self.summarise(self.language(x, *causal(there))[:, -1])


class Controller(nn.Module):
    """S1: a frame and the state, and the latent -> actions [1,10,35] and how much of the task is done [1,1]."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        self.pyramid = ConvPyramid(sizes.widths, sizes.depths)
        self.see = nn.ModuleList(nn.Conv2d(w, width, 1) for w in self.pyramid.widths)
        count = sum((sizes.side // s) ** 2 for s in STRIDES)
        self.places, self.queries = (nn.Parameter(torch.randn(1, n, width)) for n in (count + 1, HORIZON + 1))
        self.feel, self.hear = nn.Linear(JOINTS, width), nn.Linear(sizes.latent, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, sizes.heads, sizes.hidden) for _ in range(sizes.layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, sizes.heads, sizes.hidden) for _ in range(sizes.layers))
        self.encoded, self.heard, self.decoded = (nn.LayerNorm(width) for _ in range(3))
        self.act, self.done = nn.Linear(width, JOINTS), nn.Linear(width, 1)

    def forward(self, image: torch.Tensor, state: torch.Tensor, latent: torch.Tensor) \
            -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.pyramid(unit(image, *IMAGENET))
        seen = [see(m).flatten(2).transpose(1, 2) for see, m in zip(self.see, maps, strict=True)]
        x = torch.cat([*seen, self.feel(state)[:, None]], 1) + self.places
        for layer in self.encoder:
            x = layer(x)
        memory = torch.cat([self.encoded(x), self.heard(self.hear(latent))[:, None]], 1)
        y = self.queries
        for layer in self.decoder:
            y = layer(y, memory)
        y = self.decoded(y)
        return self.act(y[:, :HORIZON]), self.done(y[:, HORIZON]).sigmoid()


class Helix(nn.Module):
    """{"action": f32 [1,10,35], "done": f32 [1,1], "latent": f32 [1,512]}: the last is what S2 handed over."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.slow, self.fast = Reasoner(sizes), Controller(sizes)
        for name in ("state", "action"):
            self.register_buffer(f"{name}_mean", torch.randn(JOINTS))
            self.register_buffer(f"{name}_std", torch.rand(JOINTS) + 0.5)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        states = [(inputs[n] - self.state_mean) / self.state_std for n in (SLOW_STATE, FAST_STATE)]
        latent = self.slow(inputs[TOKENS], inputs[MASK], inputs[SLOW_IMAGE], states[0])
        action, done = self.fast(inputs[FAST_IMAGE], states[1], latent)
        return {"action": action * self.action_std + self.action_mean, "done": done, "latent": latent}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(TEXT, sizes.language.vocabulary, 9)
    example = {TOKENS: tokens, MASK: mask, SLOW_IMAGE: frame(sizes.vision.side), SLOW_STATE: torch.randn(1, JOINTS),
               FAST_IMAGE: frame(sizes.side), FAST_STATE: torch.randn(1, JOINTS)}
    slow, fast = Source("observation", SLOW_HZ), Source("observation", FAST_HZ)
    sources = {TOKENS: TASK, MASK: TASK, SLOW_IMAGE: slow, SLOW_STATE: slow, FAST_IMAGE: fast, FAST_STATE: fast}
    return Policy("helix", Helix(sizes).eval(), sources, example, outputs=("action", "done", "latent"), execute=1)


_PAGE = "figure.ai/news/helix"
SYSTEM = System(
    "Helix", 2025, 23, _PAGE, make,
    says=("a slow vision-language model hands a latent vector to a fast policy",),
    assumptions=(
        "S2: SigLIP-so400m of 224 pixels, 64 tokens, and a language model of Qwen2-7B's sizes; the instruction comes "
        "before the image, the latent of 512 numbers is read from the state's token",
        "S1: a residual convolutional network with maps of strides 8, 16 and 32, six layers each of encoder and "
        "decoder of width 512; the latent is one more token of the decoder's memory",
        "10 actions of 35 numbers per step, of which one is executed; S2 at 8 Hz gets frames and states of its own, "
        "and S1 acts on a latent of at most 500 ms age",
    ),
    published=(
        Published("parameters", 7000, "M", "S2", _PAGE), Published("parameters", 80, "M", "S1", _PAGE),
        Published("rate", 8, "latents/s", "S2, 7 to 9, on a GPU of its own", _PAGE),
        Published("rate", 200, "actions/s", "S1, on a GPU of its own", _PAGE),
    ))
