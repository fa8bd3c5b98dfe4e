"""Qwen2-VL (Wang et al. 2024, arXiv 2409.12191) and Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923) for frames of a
fixed size, so that the grid of patches, the windows and the rotary positions in three dimensions are constants. Weights
are named as in their checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.resize import resize
from vlacompile.frontends.transformer import RmsNorm, Rope, rotated
from vlacompile.frontends.vision_transformer import Mlp
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes, causal
from vlacompile.zoo.blocks.vision_tower import quick_gelu

MERGE, FRAMES, EPS, BASE = 2, 2, 1e-6, 10000.0  # patches per side of a token; frames of a picture, which are equal
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
QWEN2_2B = LanguageSizes(1536, 28, 12, 2, 8960, 151936, base=1e6, bias=True)
QWEN25_3B = LanguageSizes(2048, 36, 16, 2, 11008, 151936, base=1e6, bias=True)


@dataclass(frozen=True)
class QwenVisionSizes:
    """grid: patches (rows, columns) of a frame. window: side in patches of what a block attends to, 0: all (Qwen2-VL);
    whole: blocks that attend to all nevertheless. gated: MLP and norms of Qwen2.5-VL."""

    grid: tuple[int, int]
    out: int
    width: int = 1280
    depth: int = 32
    heads: int = 16
    hidden: int = 5120
    patch: int = 14
    window: int = 0
    whole: tuple[int, ...] = ()
    gated: bool = False


def windowed(grid: tuple[int, int], out: int) -> QwenVisionSizes:
    return QwenVisionSizes(grid, out, hidden=3420, window=8, whole=(7, 15, 23, 31), gated=True)


def grid_of(height: int, width: int, patch: int = 14) -> tuple[int, int]:
    """Patches of a frame that is resized to the nearest multiple of a token's side."""
    rows, columns = (round(n / (patch * MERGE)) * MERGE for n in (height, width))
    return rows, columns


def _norm(sizes: QwenVisionSizes) -> nn.Module:
    return RmsNorm(sizes.width, EPS) if sizes.gated else nn.LayerNorm(sizes.width, EPS)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, rope: Rope) -> torch.Tensor:
        """x [windows,n,width], rope [windows,n,head_dim]"""
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(rotated(q, rope), rotated(k, rope), v)
        return self.proj(seen.transpose(1, 2).reshape(x.shape))


class _GatedMlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Block(nn.Module):
    def __init__(self, sizes: QwenVisionSizes):
        super().__init__()
        self.norm1, self.norm2, self.attn = _norm(sizes), _norm(sizes), _Attention(sizes.width, sizes.heads)
        self.mlp = (_GatedMlp(sizes.width, sizes.hidden) if sizes.gated
                    else Mlp(sizes.width, sizes.hidden, quick_gelu))

    def forward(self, x: torch.Tensor, rope: Rope) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self, sizes: QwenVisionSizes):
        super().__init__()
        self.patch = sizes.patch
        self.proj = nn.Conv3d(3, sizes.width, (FRAMES, sizes.patch, sizes.patch), bias=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels f32 [1,3,H,W] of one frame, which stands for both -> [1,width,rows,columns]"""
        return F.conv2d(pixels, self.proj.weight.sum(2), stride=self.patch)


class _Merger(nn.Module):
    def __init__(self, sizes: QwenVisionSizes):
        super().__init__()
        joined = sizes.width * MERGE**2
        self.ln_q = _norm(sizes)
        self.mlp = nn.Sequential(nn.Linear(joined, joined), nn.GELU(), nn.Linear(joined, sizes.out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.ln_q(x).view(1, x.shape[1] // MERGE**2, -1))


class QwenVision(nn.Module):
    """A frame u8 [1,H,W,3] -> tokens [1,rows*columns/4,out]"""

    def __init__(self, sizes: QwenVisionSizes):
        super().__init__()
        self.sizes = sizes
        self.patch_embed, self.merger = _Patches(sizes), _Merger(sizes)
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.depth))

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        x = resize(frame.permute(0, 3, 1, 2).to(torch.float32), tuple(n * self.sizes.patch for n in self.sizes.grid),
                   "bicubic") / 255.0
        return self.see((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        order, windows = _window_order(self.sizes)
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)[:, order]
        rope = self._rope(order)
        for i, block in enumerate(self.blocks):
            parts = 1 if i in self.sizes.whole else windows
            whole, cut = x.shape, (parts, x.shape[1] // parts, -1)
            x = block(x.view(cut), (rope[0].view(cut), rope[1].view(cut))).view(whole)
        merged = self.merger(x)
        back = order.view(-1, MERGE**2)[:, 0].argsort()  # tokens in reading order of their first patch
        return merged[:, back] if windows > 1 else merged

    def _rope(self, order: torch.Tensor) -> Rope:
        rows, columns = self.sizes.grid
        places = torch.stack([torch.arange(rows)[:, None].expand(rows, columns).flatten(),
                              torch.arange(columns)[None].expand(rows, columns).flatten()], -1)[order]
        half = self.sizes.width // self.sizes.heads // 2
        frequencies = 1.0 / (BASE ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
        angles = (places[..., None].float() * frequencies).flatten(1)[None]
        both = torch.cat([angles, angles], -1)
        return both.cos(), both.sin()


def _window_order(sizes: QwenVisionSizes) -> tuple[torch.Tensor, int]:
    """(the patches of the grid window by window, within it token by token; how many windows there are)"""
    rows, columns = sizes.grid
    side = (sizes.window, sizes.window) if sizes.window else (rows, columns)
    assert rows % side[0] == 0 and columns % side[1] == 0, "windows of one size"
    down, across = rows // side[0], columns // side[1]
    index = torch.arange(rows * columns).view(down, side[0] // MERGE, MERGE, across, side[1] // MERGE, MERGE)
    return index.permute(0, 3, 1, 4, 2, 5).flatten(), down * across


class QwenLanguage(LanguageModel):
    """Qwen2 whose head channels are rotated by time, row and column in turns. sections: frequencies of each."""

    def __init__(self, sizes: LanguageSizes, sections: tuple[int, int, int] = (16, 24, 24)):
        super().__init__(sizes)
        assert 2 * sum(sections) == sizes.dim
        self.sections = sections

    def forward(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: SlotCache | None = None) \
            -> torch.Tensor:
        """x [1,n,width], mask: what is added to the scores, positions [3,n]"""
        half = self.sizes.dim // 2
        frequencies = 1.0 / (self.sizes.base ** (torch.arange(half, dtype=torch.float32) / half))
        angles = torch.cat([positions[axis].float()[:, None] * own
                            for axis, own in enumerate(frequencies.split(self.sections))], -1)[None]
        both = torch.cat([angles, angles], -1)
        rope = both.cos(), both.sin()
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, rope, cache, i)
        return self.norm(x)


class QwenVl(nn.Module):
    """A chat: fixed words, the frames with two fixed words between them, then words that the host writes. before: how
    many words precede the first frame."""

    def __init__(self, vision: QwenVisionSizes, language: LanguageSizes, sections: tuple[int, int, int], before: int):
        super().__init__()
        self.visual, self.model = QwenVision(vision), QwenLanguage(language, sections)
        self.register_buffer("before", torch.randint(1, language.vocabulary, (1, before)))
        self.register_buffer("between", torch.randint(1, language.vocabulary, (1, 2)))

    def prompt(self, frames: Sequence[torch.Tensor], words: torch.Tensor, mask: torch.Tensor) \
            -> tuple[torch.Tensor, torch.Tensor]:
        """(embeddings [1,n,width], positions [3,n]) of a chat about frames that ends with `words` i64 [1,m], of which
        those count that the mask bool [1,m] names"""
        embed, parts, places = self.model.embed_tokens, [], []
        rows, columns = (n // MERGE for n in self.visual.sizes.grid)
        grid = torch.stack([torch.zeros(rows, columns), torch.arange(rows)[:, None].expand(rows, columns),
                            torch.arange(columns)[None].expand(rows, columns)]).flatten(1).long()
        begin = 0
        for i, frame in enumerate(frames):
            said = self.between if i else self.before
            parts += [embed(said), self.visual(frame)]
            places += [begin + torch.arange(said.shape[1]).expand(3, -1), begin + said.shape[1] + grid]
            begin += said.shape[1] + max(rows, columns)
        places.append(begin + (mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1))
        return torch.cat([*parts, embed(words)], 1), torch.cat(places, 1)

    def read(self, frames: Sequence[torch.Tensor], words: torch.Tensor, mask: torch.Tensor) \
            -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden states [1,n,width] after the norm, their padding mask bool [1,n])"""
        x, positions = self.prompt(frames, words, mask)
        before = torch.ones(1, x.shape[1] - words.shape[1], dtype=torch.bool)
        whole = torch.cat([before, mask], 1)
        return self.model(x, causal(whole)[0], positions), whole
