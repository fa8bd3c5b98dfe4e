"""GPT-2's layers (Radford et al. 2019) over embeddings, without positions of their own; weights named as in
transformers, of linear layers stored [in,out].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Transposed(nn.Module):
    """A linear layer whose weight is stored as transformers' Conv1D stores it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) * inputs**-0.5), nn.Parameter(
            torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.T, self.bias)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.c_attn, self.c_proj = heads, Transposed(width, 3 * width), Transposed(width, width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        _, n, width = x.shape
        q, k, v = (p.view(1, n, self.heads, -1).transpose(1, 2) for p in self.c_attn(x).split(width, 2))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(1, n, width))


class _Mlp(nn.Module):
    def __init__(self, width: int, activation: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.c_fc, self.c_proj, self.activation = Transposed(width, 4 * width), Transposed(4 * width, width), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, activation: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = _Attention(width, heads), _Mlp(width, activation)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), keep)
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """x f32 [1,n,width] -> the same. keep: bool [n,n], the keys that a query sees."""

    def __init__(self, width: int, depth: int, heads: int,
                 activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu):
        super().__init__()
        self.h = nn.ModuleList(_Layer(width, heads, activation) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        for layer in self.h:
            x = layer(x, keep)
        return self.ln_f(x)
