"""GEN-0: sensing and acting as two streams of timestamped tokens in one transformer; a stand-in, as nothing of the
model is public.

A step appends the tokens of a new frame, if there is one, and the token of now, from which the action is read. Their
keys and values go to a ring that both streams share and the next step takes from this one; the oldest tokens leave it.
The instruction's stay. Tokens see what was there before them in either stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from vlacompile.frontends.transformer import added
from vlacompile.policy.carried import Carried
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.inputs import MASK, STATE, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes
from vlacompile.zoo.blocks.siglip import BASE, Siglip, pixel_shuffle
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.system import TINY, System

IMAGE, SENSED, NOW = "image", "time.sensed", "time.now"
PLACE, TIMES, LATEST, PREVIOUS = "ring.place", "ring.times", "time.latest", "action.previous"
WINDOW, ACTION, TEXT = 96, 16, 32
SENSE_HZ, ACT_HZ, TICKS_PER_S = 10.0, 50.0, 50.0
NEVER = 1e9  # the time of a token that is not there: later than any
VISION, DECODER = replace(BASE, side=224), LanguageSizes(1024, 14, 16, 4, 2816, 32000)


@dataclass(frozen=True)
class Sizes:
    """shuffle: side of the squares of patches that become a token."""

    vision: TowerSizes = VISION
    decoder: LanguageSizes = DECODER
    shuffle: int = 7


SMALL = Sizes(TowerSizes(24, 2, 4, 48, 16, 64),
              replace(DECODER, width=32, depth=2, heads=4, kv_heads=2, hidden=64, vocabulary=100), 2)


class Prefix:
    """Keeps the keys and values of the instruction, per layer."""

    def __init__(self):
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.kept.append((key, value))
        return key, value


class Ring:
    """Writes keys and values [1,heads,n,head_dim] of new tokens into rows of a ring, per layer. rows: i64 [n]. there:
    bool [n], whether a token is one; otherwise its row stays as it is."""

    def __init__(self, prefix: Prefix, kept: list[torch.Tensor], rows: torch.Tensor, there: torch.Tensor):
        self.prefix, self.kept, self.rows, self.there = prefix, kept, rows, there
        self.written: list[torch.Tensor] = []

    def write(self, new: torch.Tensor, kept: torch.Tensor, axis: int) -> torch.Tensor:
        along = (-1, *(1,) * (kept.dim() - axis - 1))
        rows = self.rows.reshape(along).expand(new.shape)
        return kept.scatter(axis, rows, torch.where(self.there.reshape(along), new, kept.gather(axis, rows)))

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, ...]:
        rings = [self.write(new, old, 2) for new, old in zip((key, value), self.kept[2 * layer:], strict=False)]
        self.written += rings
        return tuple(torch.cat([p, r], 2) for p, r in zip(self.prefix.kept[layer], rings, strict=True))


class Gen0(nn.Module):
    """Token ids i64 [1,32] with their mask; the newest frame u8 [1,side,side,3] and when it was seen f32 [1]; the state
    f32 [1,16] and the time f32 [1], in seconds since the episode began -> the action for now {"action": f32 [1,1,16]}.
    Beside them what a step takes from the one before, and gives to the next (`carried`)."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.decoder.width
        self.shuffle, self.count = sizes.shuffle, (sizes.vision.rows // sizes.shuffle) ** 2
        self.vision, self.decoder = Siglip(sizes.vision), LanguageModel(sizes.decoder)
        self.see = nn.Linear(sizes.vision.width * sizes.shuffle**2, width)
        self.recall, self.feel, self.head = nn.Linear(ACTION, width), nn.Linear(ACTION, width), nn.Linear(width, ACTION)
        for name in ("state", "action"):
            self.register_buffer(f"{name}_mean", torch.randn(ACTION))
            self.register_buffer(f"{name}_std", torch.rand(ACTION) + 0.5)

    def carried(self) -> dict[str, Carried]:
        sizes, ring = self.decoder.sizes, {}
        for layer in range(sizes.depth):
            for what in ("keys", "values"):
                ring[f"ring.{what}.{layer}"] = torch.zeros(1, sizes.kv_heads, WINDOW, sizes.dim)
        begin = {**ring, TIMES: torch.full((1, WINDOW), NEVER), PLACE: torch.zeros(1, dtype=torch.int64),
                 LATEST: torch.full((1,), -1.0)}
        return {**{n: Carried(f"{n}.next", initial=t) for n, t in begin.items()},
                PREVIOUS: Carried("action", initial=self.action_mean[None, None])}

    def tokens(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(The token of now and those of the frame [1,1 + count,width], when each was [1,1 + count])"""
        seen = self.see(pixel_shuffle(self.vision(unit(inputs[IMAGE], 0.5, 0.5)), self.shuffle))
        now = self.feel((inputs[STATE] - self.state_mean) / self.state_std)[:, None]
        now = now + self.recall((inputs[PREVIOUS] - self.action_mean) / self.action_std)
        times = torch.cat([inputs[NOW], inputs[SENSED].expand(self.count)])[None]
        return torch.cat([now, seen], 1), times

    def text(self, inputs: dict[str, torch.Tensor]) -> Prefix:
        """It is before all else, and sees itself."""
        prefix, there = Prefix(), inputs[MASK]
        seen = torch.ones(TEXT, TEXT, dtype=torch.bool).tril() & there[:, None] | torch.eye(TEXT, dtype=torch.bool)
        self.decoder(self.decoder.embed_tokens(inputs[TOKENS]), added(seen), torch.arange(-TEXT, 0)[None], prefix)
        return prefix

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        x, times = self.tokens(inputs)
        new = inputs[SENSED] > inputs[LATEST]
        there = torch.cat([torch.ones_like(new), new.expand(self.count)])
        rows = (inputs[PLACE] + torch.arange(1 + self.count)) % WINDOW
        ring = Ring(self.text(inputs), [inputs[n] for n in inputs if n.startswith(("ring.keys", "ring.values"))], rows,
                    there)
        known = ring.write(times, inputs[TIMES], 1)
        seen = torch.cat([inputs[MASK][:, None].expand(1, 1 + self.count, TEXT),
                          known[:, None, :] <= times[:, :, None]], 2)
        x = self.decoder(x, added(seen), times * TICKS_PER_S, ring)
        names = [n for n in inputs if n.startswith(("ring.keys", "ring.values"))]
        return {"action": self.head(x[:, :1]) * self.action_std + self.action_mean,
                **{f"{n}.next": t for n, t in zip(names, ring.written, strict=True)}, f"{TIMES}.next": known,
                f"{PLACE}.next": (inputs[PLACE] + there.sum()) % WINDOW,
                f"{LATEST}.next": torch.maximum(inputs[SENSED], inputs[LATEST])}


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(TEXT, sizes.decoder.vocabulary, 7)
    example = {TOKENS: tokens, MASK: mask, IMAGE: frame(sizes.vision.side), SENSED: torch.tensor([0.25]),
               STATE: torch.randn(1, ACTION), NOW: torch.tensor([0.31])}
    sense, act = Source("observation", SENSE_HZ), Source("observation", ACT_HZ)
    sources = {TOKENS: TASK, MASK: TASK, IMAGE: sense, SENSED: sense, STATE: act, NOW: act}
    model = Gen0(sizes).eval()
    return Policy("gen_0", model, sources, example, execute=1, carried=model.carried())


SYSTEM = System(
    "GEN-0", 2025, 28, "generalistai.com/blog, 2025-11-04", make,
    says=("sensing and acting as two streams of tokens in one transformer: a stand-in",),
    assumptions=(
        "nothing of the architecture is published but that sensing and acting are asynchronous streams of tokens in "
        "continuous time in one model, of 1 to more than 10 B parameters; this is a stand-in of 0.3 B",
        "a causal transformer; rotary positions are times in ticks of 20 ms since the episode began; a token sees the "
        "instruction and every token of both streams that is no later than it and still kept",
        "a frame of 224 pixels is 4 tokens, at 10 Hz; the state with the last action is one, at 50 Hz; the keys and "
        "values of the last 96 tokens are kept, of both streams together; one action per step",
    ))
