"""GO-1: InternVL2.5-2B, a latent planner and an action expert that read the keys and values of its every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import nn

from vlacompile.frontends.samplers import dpm_solver
from vlacompile.frontends.transformer import added, rotary, rotated
from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer
from vlacompile.policy.policy import Policy, Source
from vlacompile.zoo.blocks.experts import Kept, Pair, beside
from vlacompile.zoo.blocks.inputs import (
    FRAME,
    IMAGENET,
    MASK,
    NOISE,
    STATE,
    STEP,
    TASK,
    TOKENS,
    frame,
    unit,
    words,
)
from vlacompile.zoo.blocks.language_model import LanguageLayer, LanguageModel, LanguageSizes, causal, norm
from vlacompile.zoo.blocks.siglip import pixel_shuffle
from vlacompile.zoo.system import TINY, Published, System

CAMERAS, RATE = ("image.head", "image.left", "image.right"), "control_rate"
HORIZON, ACTION, TEXT, LATENT, KNOWN = 30, 16, 64, 4, 3  # KNOWN: rows of time, rate and state
TIMES, TRAINED = (999, 799, 599, 400, 200), 1000
SHUFFLE, SYSTEM_TOKENS, HERTZ = 2, 40, 30.0
INTERNLM2 = LanguageSizes(2048, 24, 16, 8, 8192, 92553, head_dim=128, eps=1e-5, base=1e6)
INTERN_VIT = VisionSizes(1024, 24, 16, 4096, 14, 448, prefix=1, scaled=True)
EXPERT = LanguageSizes(1024, 24, 16, 8, 2048, 1, head_dim=64, eps=1e-5)


@dataclass(frozen=True)
class Sizes:
    vision: VisionSizes = INTERN_VIT
    language: LanguageSizes = INTERNLM2
    expert: LanguageSizes = EXPERT
    projected: int = 2048


SMALL = Sizes(replace(INTERN_VIT, width=32, depth=2, heads=4, hidden=64, side=56),
              replace(INTERNLM2, width=64, depth=3, heads=4, kv_heads=2, hidden=96, vocabulary=100, head_dim=16),
              replace(EXPERT, width=32, depth=3, heads=4, kv_heads=2, hidden=64, head_dim=8), 64)


class _Expert(nn.Module):
    """Layers whose tokens read what is given to every layer."""

    def __init__(self, sizes: LanguageSizes):
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(LanguageLayer(sizes) for _ in range(sizes.depth))
        self.norm = norm(sizes, sizes.width)

    def run(self, x: torch.Tensor, visible: torch.Tensor, positions: torch.Tensor, read: list[Pair]) \
            -> tuple[torch.Tensor, list[Pair]]:
        """x [1,n,width], visible bool [1,n,read and n] -> ([1,n,width], own keys and values of every layer)."""
        rope, own = rotary(positions, self.sizes.dim, self.sizes.base), []
        for layer, pair in zip(self.layers, read, strict=True):
            x, made = beside(layer, x, rope, added(visible), pair)
            own.append(made)
        return self.norm(x), own


def _mlp(given: int, width: int, made: int, layers: int) -> nn.Sequential:
    sizes = [given, *[width] * (layers - 1), made]
    parts = [p for a, b in pairwise(sizes) for p in (nn.Linear(a, b), nn.GELU(approximate="tanh"))]
    return nn.Sequential(*parts[:-1])


class _Scalar(nn.Module):
    """A number [1] -> a token [1,1,width]: sines and cosines, then an MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, number: torch.Tensor) -> torch.Tensor:
        angles = number.to(torch.float32)[:, None] * torch.exp(torch.arange(128) * (-math.log(10000.0) / 128))
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))[:, None]


class Go1(nn.Module):
    """Frames u8 [1,side,side,3] of three cameras, token ids i64 [1,64] with their mask, state f32 [1,16], the control
    rate in Hz f32 [1] -> the chunk {"action": f32 [1,30,16]}."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        language, expert = sizes.language, sizes.expert
        self.vision, self.language = VisionTransformer(sizes.vision), LanguageModel(language)
        seen = sizes.vision.width * SHUFFLE**2
        self.connector = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, sizes.projected), nn.GELU(),
                                       nn.Linear(sizes.projected, language.width))
        self.k_proj_layers, self.v_proj_layers = (
            nn.ModuleList(nn.Linear(language.dim, expert.dim) for _ in range(language.depth)) for _ in range(2))
        self.planner, self.expert = _Expert(expert), _Expert(expert)
        self.latent = _mlp(1, expert.width, expert.width, 3)
        self.time, self.rate = _Scalar(expert.width), _Scalar(expert.width)
        self.state_in, self.action_in = (_mlp(ACTION, expert.width, expert.width, 3) for _ in range(2))
        self.action_out = _mlp(expert.width, expert.width, ACTION, 2)
        ids = torch.randint(0, language.vocabulary, (1, SYSTEM_TOKENS + 2))
        self.register_buffer("template", ids, persistent=False)  # system prompt; begin and end of an image
        for name in ("state", "action"):
            self.register_buffer(f"{name}_mean", torch.randn(ACTION))
            self.register_buffer(f"{name}_std", torch.rand(ACTION) + 0.5)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        there, seen = self._read(inputs)
        state = self.state_in((inputs[STATE] - self.state_mean) / self.state_std)[:, None]
        rate, read, there = self.rate(inputs[RATE]), *self._plan(seen, there)
        places = there.sum(-1, keepdim=True) + torch.arange(KNOWN + HORIZON)[None]
        own = torch.ones(KNOWN + HORIZON, KNOWN + HORIZON, dtype=torch.bool)
        own[:KNOWN, KNOWN:] = False  # time, rate and state do not see the actions
        visible = torch.cat([there[:, None].expand(1, KNOWN + HORIZON, -1), own[None]], 2)

        def predict(sample: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.time(time[None]), rate, state, self.action_in(sample)], 1)
            x, _ = self.expert.run(x, visible, places, read)
            return self.action_out(x[:, KNOWN:])

        actions = dpm_solver(TIMES, _signal(TIMES), "sample", None).denoise(predict, inputs[NOISE])
        return {"action": actions * self.action_std + self.action_mean}

    def _read(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[Pair]]:
        """Which tokens there are bool [1,n], and their keys and values."""
        embed = self.language.embed_tokens
        system, begin, end = embed(self.template).split([SYSTEM_TOKENS, 1, 1], 1)
        parts = [system]
        for camera in CAMERAS:
            features = pixel_shuffle(self.vision(unit(inputs[camera], *IMAGENET)), SHUFFLE)
            parts += [begin, self.connector(features), end]
        x = torch.cat([*parts, embed(inputs[TOKENS])], 1)
        everything, kept = torch.ones(1, x.shape[1], dtype=torch.bool), Kept()
        self.language(x, *causal(everything), kept)  # padding comes last: none of the others sees it
        return torch.cat([everything[:, TEXT:], inputs[MASK]], 1), kept.layers

    def _plan(self, seen: list[Pair], there: torch.Tensor) -> tuple[list[Pair], torch.Tensor]:
        """What the action expert reads: keys and values of the language model, projected and rotated once more, and of
        the latent tokens; and which of these there are."""
        positions = (there.cumsum(-1) - 1).clamp(min=0)
        rope = rotary(positions, self.expert.sizes.dim, self.expert.sizes.base)
        read = [(rotated(key(k), rope), value(v))
                for (k, v), key, value in zip(seen, self.k_proj_layers, self.v_proj_layers, strict=True)]
        x = self.latent(torch.full((1, LATENT, 1), -1.0))
        visible = torch.cat([there, torch.ones(1, LATENT, dtype=torch.bool)], 1)
        places = there.sum(-1, keepdim=True) + torch.arange(LATENT)[None]
        _, own = self.planner.run(x, visible[:, None].expand(1, LATENT, -1), places, read)
        joined = [(torch.cat([k, a], 2), torch.cat([v, b], 2)) for (k, v), (a, b) in zip(read, own, strict=True)]
        return joined, visible


def _signal(times: tuple[int, ...]) -> list[float]:
    """Share of the signal at these times and at the end, of the squared cosine schedule (Nichol and Dhariwal 2021)."""
    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    kept, shares = 1.0, []
    for i in range(TRAINED):
        kept *= 1 - min(1 - level((i + 1) / TRAINED) / level(i / TRAINED), 0.999)
        shares.append(kept)
    return [*(shares[t] for t in times), 1.0]


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    tokens, mask = words(TEXT, sizes.language.vocabulary, 15)
    example = {TOKENS: tokens, MASK: mask, **{c: frame(sizes.vision.side) for c in CAMERAS},
               STATE: torch.randn(1, ACTION), RATE: torch.tensor([HERTZ]), NOISE: torch.randn(1, HORIZON, ACTION)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, FRAME), STATE: FRAME, RATE: Source("static"),
               NOISE: STEP}
    return Policy("go_1", Go1(sizes).eval(), sources, example, execute=HORIZON)


_PAPER = "arXiv 2503.06669"
SYSTEM = System(
    "GO-1", 2025, 21, f"{_PAPER} and the configuration of OpenDriveLab/AgiBot-World; none of its code was used", make,
    says=("InternVL2.5-2B, a latent planner and an action expert",),
    code="CC BY-NC-SA 4.0", weights="CC BY-NC-SA 4.0",
    unread="their non-commercial code was not run, and nothing shows that this module gives their actions with them; "
           "the words of the system prompt are in no file of weights",
    assumptions=(
        "projections of keys and values have biases; hidden activations are tanh-approximated GELUs; the embeddings of "
        "time and control rate are those of a DiT",
        "system prompt of 40 tokens, one token before and after every image, 64 tokens of text after the images; the "
        "tokens of planner and expert follow in position",
        "a state and actions of 16 numbers, three cameras of 448 pixels, one control rate per robot: 30 Hz",
    ),
    published=(
        Published("memory", 7, "GB", "RTX 4090", "github.com/OpenDriveLab/AgiBot-World"),
        Published("success", 78, "% of tasks", "mean score of five tasks", _PAPER),
    ))
