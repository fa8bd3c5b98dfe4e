"""Learned queries that read the features of a model, layer by layer (after Li et al. 2023, arXiv 2301.12597), in the
variant of InternVLA-M1, whose names its weights have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class CrossAttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, query: torch.Tensor, seen: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """query [1,q,width], seen [1,n,width], keep: bool [1,n]"""
        at, width = self.cross_attn, query.shape[-1]
        weights, biases = at.in_proj_weight.split(width), at.in_proj_bias.split(width)
        q, k, v = (F.linear(x, w, b).view(1, x.shape[1], at.num_heads, -1).transpose(1, 2)
                   for x, w, b in zip((self.norm1(query), seen, seen), weights, biases, strict=True))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None])
        query = query + at.out_proj(read.transpose(1, 2).reshape(query.shape))
        return query + self.mlp(self.norm2(query))


class LayerwiseQFormer(nn.Module):
    """given: width of the features. queries: how many there are."""

    def __init__(self, given: int, width: int, queries: int, layers: int = 1, heads: int = 8):
        super().__init__()
        self.proj, self.query_tokens = nn.Linear(given, width), nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(CrossAttentionBlock(width, heads) for _ in range(layers))

    def forward(self, features: Sequence[torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
        """features: [1,n,given] per layer, keep: bool [1,n] -> [1,queries,width]"""
        query = self.query_tokens[None]
        for layer, seen in zip(self.layers, features, strict=True):
            query = layer(query, self.proj(seen), keep)
        return query
