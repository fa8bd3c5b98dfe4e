"""NanoVLA: a late-fusion regressor of action chunks, with a light and a heavy language backbone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.join_backbones import join
from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.bert import Bert
from vlacompile.zoo.blocks.inputs import FRAME, IMAGENET, MASK, STATE, TASK, TOKENS, frame, unit, words
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes, causal
from vlacompile.zoo.blocks.resnet import ResNet
from vlacompile.zoo.system import TINY, Published, System

CAMERAS = ("image.base", "image.wrist")
HORIZON, EXECUTED, ACTION, STATES, LENGTH = 50, 10, 7, 8, 32


QWEN = LanguageSizes(896, 24, 14, 2, 4864, 151936, base=1e6, bias=True)  # Qwen2.5-0.5B


@dataclass(frozen=True)
class Sizes:
    side: int = 224
    vision: int = 64
    width: int = 512
    layers: int = 8
    heads: int = 8
    hidden: int = 2816
    bert: tuple[int, int, int, int, int] = (768, 12, 12, 3072, 30522)
    qwen: LanguageSizes = QWEN


SMALL = Sizes(64, 8, 32, 2, 4, 64, (32, 2, 4, 64, 100), replace(QWEN, width=32, depth=2, heads=4, hidden=64,
                                                                vocabulary=100))


class FusionLayer(nn.Module):
    """Self-attention over the action queries, then attention to vision, language and state, post-norm."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.self_qkv, self.self_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, sizes.hidden), nn.Linear(sizes.hidden, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def _attend(self, q, k, v, keep=None) -> torch.Tensor:
        split = (x.view(1, x.shape[1], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*split, attn_mask=keep).transpose(1, 2).reshape(q.shape)

    def forward(self, x: torch.Tensor, places: torch.Tensor, memory: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        q, k, v = self.self_qkv(x + places).chunk(3, -1)
        x = self.norms[0](x + self.self_out(self._attend(q, k, v)))
        q, k, v = self.query(x + places), self.key(memory), self.value(memory)
        x = self.norms[1](x + self.out(self._attend(q, k, v, keep)))
        return self.norms[2](x + self.down(F.relu(self.up(x))))


class NanoVla(nn.Module):
    """Frames u8 [1,side,side,3] of two cameras, token ids i64 [1,32] with their mask, state f32 [1,8] -> the chunk
    {"action": f32 [1,50,7]}."""

    def __init__(self, sizes: Sizes, heavy: bool, vision: ResNet):
        super().__init__()
        self.heavy, width, self.vision = heavy, sizes.width, vision
        self.language: nn.Module = LanguageModel(sizes.qwen) if heavy else Bert(*sizes.bert)
        self.see = nn.Linear(self.vision.channels, width)
        self.read = nn.Linear(sizes.qwen.width if heavy else sizes.bert[0], width)
        self.feel = nn.Sequential(nn.Linear(STATES, width), nn.ReLU(), nn.Linear(width, width))
        self.views = nn.Parameter(torch.randn(len(CAMERAS), 1, (sizes.side // 32) ** 2, width))
        self.queries = nn.Parameter(torch.randn(1, HORIZON, width))
        self.layers = nn.ModuleList(FusionLayer(sizes) for _ in range(sizes.layers))
        self.head = nn.Linear(width, ACTION)

    def _text(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if not self.heavy:
            return self.language(tokens, mask)
        return self.language(self.language.embed_tokens(tokens), *causal(mask))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = [self.see(self.vision(unit(inputs[c], *IMAGENET)).flatten(2).transpose(1, 2)) + self.views[i]
                for i, c in enumerate(CAMERAS)]
        text = self.read(self._text(inputs[TOKENS], inputs[MASK]))
        memory = torch.cat([*seen, text, self.feel(inputs[STATE])[:, None]], 1)
        others = torch.ones(1, memory.shape[1] - LENGTH - 1, dtype=torch.bool)
        keep = torch.cat([others, inputs[MASK], torch.ones(1, 1, dtype=torch.bool)], 1)[:, None, None]
        x = torch.zeros_like(self.queries)
        for layer in self.layers:
            x = layer(x, self.queries, memory, keep)
        return {"action": self.head(x)}


def _member(variant: str, sizes: Sizes, vision: ResNet) -> Policy:
    heavy = variant == "l"
    tokens, mask = words(LENGTH, sizes.qwen.vocabulary if heavy else sizes.bert[4], 9)
    example = {TOKENS: tokens, MASK: mask, **{c: frame(sizes.side) for c in CAMERAS}, STATE: torch.randn(1, STATES)}
    sources = {TOKENS: TASK, MASK: TASK, **dict.fromkeys(CAMERAS, FRAME), STATE: FRAME}
    return Policy(f"nanovla_{variant}", NanoVla(sizes, heavy, vision).eval(), sources, example, execute=EXECUTED)


def make(variant: str, size: str) -> Policy:
    sizes = SMALL if size == TINY else Sizes()
    vision = ResNet(18, sizes.vision)
    if variant == "r":
        return join({"light": _member("s", sizes, vision), "heavy": _member("l", sizes, vision)})
    return _member(variant, sizes, vision)


_PAPER = "arXiv 2510.25122"
SYSTEM = System(
    "NanoVLA", 2025, 27, _PAPER, make,
    says=(
        "S: the light language backbone",
        "L: the heavy language backbone",
        "R: both in one, routed per instruction"),
    variants=("s", "l", "r"),
    assumptions=(
        "vision: ResNet-18 up to its last feature map, frozen and shared by S and L, 49 tokens per camera, two cameras "
        "of 224 pixels",
        "fusion: 8 post-norm decoder layers of width 512, 8 heads, 2816 hidden, 50 learned queries; the paper gives "
        "the total of 161 M parameters for S, which these sizes add up to; for L, with the same fusion and "
        "Qwen2.5-0.5B, they come to 5 % more than its 520 M",
        "32 tokens of text, a state of 8 numbers, 7 numbers per action",
    ),
    published=(
        Published("rate", 10, "replans/s, at least", "Jetson Orin Nano 8 GB", _PAPER),
        Published("parameters", 161, "M", "S", _PAPER),
        Published("parameters", 520, "M", "L", _PAPER),
        Published("success", 84.1, "% of LIBERO episodes", "R, mean of four suites", _PAPER),
    ))
