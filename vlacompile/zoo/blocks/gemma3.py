"""Gemma 3's language model (Gemma team 2025, arXiv 2503.19786) as the prefix of a flow policy, and an expert of its
shape whose norms a condition modulates.

Five of six layers attend within a window and have another rotary base; queries and keys are normalised; four norms per
layer, before and after attention and MLP. Weights are named as in transformers' Gemma3TextModel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vlacompile.frontends.gemma import AdaptiveNorm, Cache
from vlacompile.frontends.transformer import Attention, GatedMlp, added, attend, projections, rotary
from vlacompile.zoo.blocks.language_model import PlusOneNorm
from vlacompile.zoo.blocks.siglip import gelu

EPS, LOCAL_BASE, GLOBAL_BASE, EVERY = 1e-6, 1e4, 1e6, 6  # of EVERY layers the last is global


@dataclass(frozen=True)
class Gemma3Sizes:
    """window: how many tokens a local layer sees on each side. scale: the global base's positions are divided by it.
    condition: width of what modulates the norms, or None: they have weights."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    window: int
    condition: int | None = None
    scale: float = 8.0


GEMMA3_4B = Gemma3Sizes(2560, 34, 8, 4, 256, 10240, 1024)


class _Layer(nn.Module):
    def __init__(self, sizes: Gemma3Sizes):
        super().__init__()
        self.self_attn = Attention(sizes.width, sizes.heads, sizes.kv_heads, sizes.head_dim)
        self.self_attn.q_norm, self.self_attn.k_norm = (PlusOneNorm(sizes.head_dim, EPS) for _ in range(2))
        self.mlp = GatedMlp(sizes.width, sizes.hidden, gelu)
        self.input_layernorm, self.pre_feedforward_layernorm = (
            AdaptiveNorm(sizes.width, EPS, sizes.condition) for _ in range(2))
        self.post_attention_layernorm, self.post_feedforward_layernorm = (
            AdaptiveNorm(sizes.width, EPS, None) for _ in range(2))

    def forward(self, x, mask, rope, past, cond):
        """past: keys and values of earlier tokens, or None. Returns (x, keys and values of these tokens)."""
        y, gate = self.input_layernorm(x, cond)
        q, k, v = projections(self.self_attn, y, rope)
        all_k, all_v = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        seen = attend(q, all_k, all_v, mask, self.self_attn.scaling).reshape(*x.shape[:-1], -1)
        x = _add(x, self.post_attention_layernorm(self.self_attn.o_proj(seen))[0], gate)
        y, gate = self.pre_feedforward_layernorm(x, cond)
        return _add(x, self.post_feedforward_layernorm(self.mlp(y))[0], gate), (k, v)


def _add(residual: torch.Tensor, x: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    return residual + x if gate is None else residual + x * gate


class Gemma3(nn.Module):
    def __init__(self, sizes: Gemma3Sizes):
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.depth))
        self.norm = AdaptiveNorm(sizes.width, EPS, sizes.condition)

    def run(self, x: torch.Tensor, visible: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor,
            past: Cache | None = None, cond: torch.Tensor | None = None) -> tuple[torch.Tensor, Cache]:
        """x [1,n,width] after all layers and the norm, and the keys and values of these tokens.

        visible bool [1,n,m]: which keys each token may attend to; positions [1,n] of the tokens and keys [1,m] of the
        keys, by which a local layer sees no further than its window. past: of earlier tokens, read and not extended.
        """
        sizes, cache = self.sizes, []
        near = (positions[:, :, None] - keys[:, None]).abs() < sizes.window
        masks = added(visible), added(visible & near)
        ropes = (rotary(positions / sizes.scale, sizes.head_dim, GLOBAL_BASE),
                 rotary(positions, sizes.head_dim, LOCAL_BASE))
        for i, layer in enumerate(self.layers):
            local = (i + 1) % EVERY != 0
            x, present = layer(x, masks[local], ropes[local], past[i] if past else None, cond)
            cache.append(present)
        return self.norm(x, cond)[0], cache
