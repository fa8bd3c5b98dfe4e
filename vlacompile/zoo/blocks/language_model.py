"""A decoder-only language model in plain PyTorch: Llama, Qwen 2 and 3, SmolLM2, Gemma, by their settings. Weights are
named as in transformers' *Model classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.transformer import Attention, GatedMlp, RmsNorm, added, attend, projections, rotary


@dataclass(frozen=True)
class LanguageSizes:
    """bias: of the projections to queries, keys and values (Qwen2). head_norm: RMS norms of queries and keys per head
    (Qwen3, Gemma3). plus_one: RMS norms multiply by 1 + weight (Gemma)."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    head_dim: int = 0
    eps: float = 1e-6
    base: float = 10000.0
    bias: bool = False
    head_norm: bool = False
    plus_one: bool = False
    activation: Callable[[torch.Tensor], torch.Tensor] = F.silu

    @property
    def dim(self) -> int:
        return self.head_dim or self.width // self.heads


class PlusOneNorm(RmsNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (1 + self.weight) * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


def norm(sizes: LanguageSizes, width: int) -> nn.Module:
    return (PlusOneNorm if sizes.plus_one else RmsNorm)(width, sizes.eps)


class LanguageAttention(Attention):
    def __init__(self, sizes: LanguageSizes):
        super().__init__(sizes.width, sizes.heads, sizes.kv_heads, sizes.dim)
        if sizes.bias:
            for name in ("q_proj", "k_proj", "v_proj"):
                old = getattr(self, name)
                setattr(self, name, nn.Linear(old.in_features, old.out_features))
        if sizes.head_norm:
            self.q_norm, self.k_norm = norm(sizes, sizes.dim), norm(sizes, sizes.dim)


class LanguageLayer(nn.Module):
    def __init__(self, sizes: LanguageSizes):
        super().__init__()
        self.self_attn, self.mlp = LanguageAttention(sizes), GatedMlp(sizes.width, sizes.hidden, sizes.activation)
        self.input_layernorm, self.post_attention_layernorm = (norm(sizes, sizes.width) for _ in range(2))

    def forward(self, x, mask, rope, cache: SlotCache | None, index: int):
        q, k, v = projections(self.self_attn, self.input_layernorm(x), rope)
        k, v = (k, v) if cache is None else cache.update(k, v, index)
        x = x + self.self_attn.o_proj(attend(q, k, v, mask, self.self_attn.scaling).reshape(*x.shape[:-1], -1))
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """The layers with their embedding, and the final norm."""

    def __init__(self, sizes: LanguageSizes):
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(LanguageLayer(sizes) for _ in range(sizes.depth))
        self.norm = norm(sizes, sizes.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: SlotCache | None = None) \
            -> torch.Tensor:
        """x [1,n,width] embeddings -> [1,n,width]. mask: what is added to the scores [1,1,n,keys]. positions [1,n]."""
        rope = rotary(positions, self.sizes.dim, self.sizes.base)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, rope, cache, i)
        return self.norm(x)


def causal(padding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """padding bool [1,n], true at tokens -> (what is added to the scores [1,1,n,n], positions [1,n]). A padded row
    attends to itself, so that no softmax is over an empty set."""
    places = torch.arange(padding.shape[1])
    seen = ((places[None, :] <= places[:, None]) & padding[:, None, :]) | torch.eye(len(places), dtype=torch.bool)
    return added(seen), (padding.cumsum(-1) - 1).clamp(min=0)
