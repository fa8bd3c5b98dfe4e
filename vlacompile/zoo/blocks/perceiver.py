"""Flamingo's resampler and gated cross-attention (Alayrac et al. 2022, arXiv 2204.14198); weights named as in
flamingo-pytorch and OpenFlamingo.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(),
                         nn.Linear(4 * width, width, bias=False))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, keep: torch.Tensor | None = None) \
        -> torch.Tensor:
    """q [n,q,heads*d], k and v [n,k,heads*d] -> [n,q,heads*d]. keep: bool [q,k], the keys that a query sees."""
    n = q.shape[0]
    q, k, v = (x.reshape(n, x.shape[1], heads, -1).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(n, q.shape[2], -1)


class PerceiverAttention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        inner, self.heads = heads * head_dim, heads
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, media: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        latents = self.norm_latents(latents)
        k, v = self.to_kv(torch.cat([self.norm_media(media), latents], 1)).chunk(2, -1)
        return self.to_out(attend(self.to_q(latents), k, v, self.heads))


class Perceiver(nn.Module):
    """media f32 [n,tokens,width] -> latents f32 [n,latents,width]"""

    def __init__(self, width: int, depth: int, heads: int, head_dim: int, latents: int):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, heads, head_dim), feed_forward(width)]) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, media: torch.Tensor) -> torch.Tensor:
        latents = self.latents.expand(media.shape[0], -1, -1)
        for attention, feed in self.layers:
            latents = attention(media, latents) + latents
            latents = feed(latents) + latents
        return self.norm(latents)
