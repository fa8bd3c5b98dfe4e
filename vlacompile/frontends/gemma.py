"""Gemma with openpi's changes: norms modulated by a condition, gated residuals, keys and values that are read but not
extended. Embeddings come in as they are, without a factor.

Names of weights are those of transformers' GemmaModel with openpi's `transformers_replace`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from vlacompile.frontends.transformer import Rope, attend, projections

Cache = list[tuple[torch.Tensor, torch.Tensor]]  # per layer: keys and values [1,kv_heads,tokens,head_dim]


class AdaptiveNorm(nn.Module):
    """RMS norm. With a condition [1,c], the scale, shift and the gate of the following residual are computed from it
    (adaRMS of pi0.5); without one the scale is 1 + weight and there is no gate."""

    def __init__(self, width: int, eps: float, condition: int | None):
        super().__init__()
        self.eps = eps
        if condition is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(condition, 3 * width)

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        scaled = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        if cond is None:
            return (scaled * (1.0 + self.weight.float())).to(x.dtype), None
        scale, shift, gate = self.dense(cond)[:, None].chunk(3, -1)
        return (scaled * (1.0 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


def _add(residual: torch.Tensor, x: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    return residual + x if gate is None else residual + x * gate


class GemmaLayer(nn.Module):
    """attention, mlp: transformers' modules, or those of transformer.py."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, width: int, eps: float, condition: int | None):
        super().__init__()
        self.self_attn, self.mlp = attention, mlp
        self.input_layernorm = AdaptiveNorm(width, eps, condition)
        self.post_attention_layernorm = AdaptiveNorm(width, eps, condition)

    def forward(self, x, mask, rope, past, cond):
        """past: cached keys and values of earlier tokens, or None. Returns (x, keys and values of these tokens)."""
        residual = x
        x, gate = self.input_layernorm(x, cond)
        x, present = self._attend(x, mask, rope, past)
        x = residual = _add(residual, x, gate)
        x, gate = self.post_attention_layernorm(x, cond)
        return _add(residual, self.mlp(x), gate), present

    def _attend(self, x, mask, rope, past):
        q, k, v = projections(self.self_attn, x, rope)
        all_k, all_v = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        out = attend(q, all_k, all_v, mask, self.self_attn.scaling)
        return self.self_attn.o_proj(out.reshape(*x.shape[:-1], -1)), (k, v)


class Gemma(nn.Module):
    """rope: (x, positions [1,n]) -> cosines and sines."""

    def __init__(self, layers: Iterable[GemmaLayer], norm: AdaptiveNorm, rope: Callable[..., Rope]):
        super().__init__()
        self.layers, self.norm, self.rotary_emb = nn.ModuleList(layers), norm, rope

    def run(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: Cache | None = None,
            cond: torch.Tensor | None = None) -> tuple[torch.Tensor, Cache]:
        """x [1,n,width] after all layers and the norm, and the keys and values of these tokens. mask: what is added to
        the scores [1,1,n,keys]. past: of earlier tokens, read and not extended. cond [1,c]: of the norms."""
        rope, cache = self.rotary_emb(x, positions), []
        for i, layer in enumerate(self.layers):
            x, present = layer(x, mask, rope, past[i] if past else None, cond)
            cache.append(present)
        return self.norm(x, cond)[0], cache
