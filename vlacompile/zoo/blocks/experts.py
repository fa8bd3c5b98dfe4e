"""Layers of an expert that runs beside a larger model and reads its keys and values, layer by layer."""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.frontends.decoding import SlotCache
from vlacompile.frontends.transformer import Rope, attend, projections

Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values [1,kv_heads,n,head_dim]


class Kept(SlotCache):
    """The keys and values of every layer of a `LanguageModel`, keys rotated."""

    def __init__(self) -> None:
        super().__init__(0)
        self.layers: list[Pair] = []

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_, **__) -> Pair:
        assert len(self.layers) == layer_idx, "layers come in order, and each once"
        self.layers.append((key, value))
        return key, value


def beside(layer: nn.Module, x: torch.Tensor, rope: Rope, mask: torch.Tensor, read: Pair) \
        -> tuple[torch.Tensor, Pair]:
    """x [1,n,width] after a `LanguageLayer` whose tokens attend to what is read and to one another, and their own keys
    and values. mask: what is added to the scores [1,1,n,read and n]."""
    q, k, v = projections(layer.self_attn, layer.input_layernorm(x), rope)
    keys, values = (torch.cat([earlier, own], 2) for earlier, own in zip(read, (k, v), strict=True))
    return after(layer, x, attend(q, keys, values, mask, layer.self_attn.scaling)), (k, v)


def after(layer: nn.Module, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The rest of a `LanguageLayer`, behind its attention. seen [1,n,heads,head_dim]."""
    x = x + layer.self_attn.o_proj(seen.reshape(1, x.shape[1], -1))
    return x + layer.mlp(layer.post_attention_layernorm(x))
