"""What the vision towers of CLIP and SigLIP share: their sizes and their layers; weights named as in transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.vision_transformer import Mlp


@dataclass(frozen=True)
class TowerSizes:
    """side: of the square frame, in pixels."""

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    side: int

    @property
    def rows(self) -> int:
        return self.side // self.patch


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p(x).view(1, x.shape[1], self.heads, -1).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class _Layer(nn.Module):
    def __init__(self, sizes: TowerSizes, activation: Callable[[torch.Tensor], torch.Tensor], eps: float):
        super().__init__()
        self.self_attn = _Attention(sizes.width, sizes.heads)
        self.mlp = Mlp(sizes.width, sizes.hidden, activation)
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(sizes.width, eps) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TowerEncoder(nn.Module):
    def __init__(self, sizes: TowerSizes, activation: Callable[[torch.Tensor], torch.Tensor], eps: float):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes, activation, eps) for _ in range(sizes.depth))


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)
