"""CLIP's text and image transformers (Radford et al. 2021, arXiv 2103.00020); weights named as in OpenAI's code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vlacompile.zoo.blocks.vision_tower import quick_gelu


@dataclass(frozen=True)
class TextSizes:
    """out: width of the embedding of a text."""

    width: int = 512
    depth: int = 12
    heads: int = 8
    length: int = 77
    vocabulary: int = 49408
    out: int = 512


@dataclass(frozen=True)
class ImageSizes:
    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    side: int = 224

    @property
    def tokens(self) -> int:
        return (self.side // self.patch) ** 2


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(quick_gelu(self.c_fc(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn, self.mlp = nn.MultiheadAttention(width, heads, batch_first=True), _Mlp(width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
        """hidden: bool [n,n], true at keys that a query does not see."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=hidden, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, hidden)
        return x


class ClipText(nn.Module):
    """Token ids i64 [1,length], padded with 0 -> the embedding f32 [1,out] of the text."""

    def __init__(self, sizes: TextSizes):
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.randn(sizes.length, sizes.width))
        self.transformer = _Transformer(sizes.width, sizes.depth, sizes.heads)
        self.ln_final = nn.LayerNorm(sizes.width)
        self.text_projection = nn.Parameter(torch.randn(sizes.width, sizes.out) * sizes.width**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding[:length], later)
        end = tokens.argmax(-1)  # the token of the end has the highest id
        return self.ln_final(x[torch.arange(x.shape[0]), end]) @ self.text_projection


class ClipImage(nn.Module):
    """pixels f32 [n,3,side,side] -> tokens f32 [n,1+N,width], the class token first, without the last norm."""

    def __init__(self, sizes: ImageSizes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(sizes.width))
        self.positional_embedding = nn.Parameter(torch.randn(sizes.tokens + 1, sizes.width))
        self.ln_pre = nn.LayerNorm(sizes.width)
        self.transformer = _Transformer(sizes.width, sizes.depth, sizes.heads)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return self.transformer(self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding))
