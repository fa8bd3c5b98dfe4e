"""A vision transformer without head (Dosovitskiy et al. 2021, arXiv 2010.11929) in plain PyTorch; weights named as in
timm. With register tokens and scaled residuals it is DINOv2's, without a class token SigLIP's. Must not know policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


@dataclass(frozen=True)
class VisionSizes:
    """side: of the square frame, in pixels. prefix: class and register tokens, dropped at the end. scaled: residuals
    have a factor per channel. film: width of a condition that modulates every block, or None. final: whether a norm
    follows the last block."""

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    side: int
    prefix: int = 0
    scaled: bool = False
    film: int | None = None
    final: bool = False
    activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(width, hidden), nn.Linear(hidden, width), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class _Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale_factor


class _Block(nn.Module):
    def __init__(self, sizes: VisionSizes):
        super().__init__()
        width = sizes.width
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn, self.mlp = _Attention(width, sizes.heads), Mlp(width, sizes.hidden, sizes.activation)
        self.ls1, self.ls2 = (_Scale(width) if sizes.scaled else nn.Identity() for _ in range(2))
        if sizes.film is not None:
            self.scale, self.shift = nn.Linear(sizes.film, width), nn.Linear(sizes.film, width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """condition [1,c]: FiLM (Perez et al. 2018, arXiv 1709.07871) between attention and MLP."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        if condition is not None:
            x = x * (1 + self.scale(condition)[:, None]) + self.shift(condition)[:, None]
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """pixels f32 [1,3,side,side] -> tokens [1,N,width], without the prefix."""

    def __init__(self, sizes: VisionSizes):
        super().__init__()
        self.prefix, self.tokens = sizes.prefix, (sizes.side // sizes.patch) ** 2
        self.patch_embed = _Patches(sizes.width, sizes.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.tokens, sizes.width))
        if sizes.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        if sizes.prefix > 1:
            self.reg_token = nn.Parameter(torch.zeros(1, sizes.prefix - 1, sizes.width))
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width, EPS) if sizes.final else nn.Identity()

    def forward(self, pixels: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        x = self.patch_embed(pixels) + self.pos_embed
        if self.prefix:
            x = torch.cat([self.cls_token, *([self.reg_token] if self.prefix > 1 else []), x], 1)
        for block in self.blocks:
            x = block(x, condition)
        return self.norm(x)[:, self.prefix:]
