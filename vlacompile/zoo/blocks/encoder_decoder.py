"""Layers of a transformer that encodes what is seen and decodes queries beside it (Vaswani et al. 2017, arXiv
1706.03762), with norms before attention and MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """x [1,n,width] attends to seen [1,m,width]."""
        q, k, v = (p(t).view(1, t.shape[1], self.heads, -1).transpose(1, 2)
                   for p, t in ((self.query, x), (self.key, seen), (self.value, seen)))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Mlp(nn.Sequential):
    def __init__(self, width: int, hidden: int):
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), Mlp(width, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        return x + self.mlp(self.norms[1](x))


class DecoderLayer(nn.Module):
    """memory has no norm here: it is normalised once, where it is made."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention, self.across, self.mlp = Attention(width, heads), Attention(width, heads), Mlp(width, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        x = x + self.across(self.norms[1](x), memory)
        return x + self.mlp(self.norms[2](x))
