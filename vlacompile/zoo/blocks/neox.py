"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745), the body of Pythia; weights named as in transformers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.transformer import Rope, attend, rotary, rotated

EPS, BASE, ROTATED = 1e-5, 10000.0, 0.25  # share of a head's channels that are rotated


@dataclass(frozen=True)
class NeoxSizes:
    width: int
    depth: int
    heads: int
    vocabulary: int = 50304

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def rotated(self) -> int:
        return int(self.head_dim * ROTATED)


class _Attention(nn.Module):
    """Queries, keys and values of a head lie side by side."""

    def __init__(self, sizes: NeoxSizes):
        super().__init__()
        self.sizes = sizes
        self.query_key_value = nn.Linear(sizes.width, 3 * sizes.width)
        self.dense = nn.Linear(sizes.width, sizes.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, rope: Rope) -> torch.Tensor:
        sizes = self.sizes
        heads = self.query_key_value(x).view(1, x.shape[1], sizes.heads, 3 * sizes.head_dim).transpose(1, 2)
        q, k, v = heads.chunk(3, -1)
        q, k = (torch.cat([rotated(y[..., : sizes.rotated], rope), y[..., sizes.rotated:]], -1) for y in (q, k))
        return self.dense(attend(q, k, v, mask, sizes.head_dim**-0.5).reshape(x.shape))


class _Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dense_h_to_4h, self.dense_4h_to_h = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))


class _Layer(nn.Module):
    def __init__(self, sizes: NeoxSizes):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = (nn.LayerNorm(sizes.width, EPS) for _ in range(2))
        self.attention, self.mlp = _Attention(sizes), _Mlp(sizes.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, rope: Rope) -> torch.Tensor:
        return x + self.attention(self.input_layernorm(x), mask, rope) + self.mlp(self.post_attention_layernorm(x))


class Neox(nn.Module):
    def __init__(self, sizes: NeoxSizes):
        super().__init__()
        self.sizes = sizes
        self.embed_in = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.depth))
        self.final_layer_norm = nn.LayerNorm(sizes.width, EPS)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """x [1,n,width] embeddings -> [1,n,width]. mask: what is added to the scores [1,1,n,n]. positions [1,n]."""
        rope = rotary(positions, self.sizes.rotated, BASE)
        for layer in self.layers:
            x = layer(x, mask, rope)
        return self.final_layer_norm(x)
