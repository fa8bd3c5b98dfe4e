"""The stages that runtimes are compared on, as policies of one stage: an almost empty one, and one of real size."""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.policy.policy import Policy, Source


class Nothing(nn.Module):
    """Call overhead: a stage with almost no work."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": x + 1.0}


class Blocks(nn.Module):
    """Pre-norm transformer layers over the tokens of an action chunk: 50 tokens of 384, 4 layers, 0.7 GFLOP."""

    def __init__(self, d: int = 384, layers: int = 4, heads: int = 6):
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList([nn.ModuleDict({
            "before": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d), "after": nn.LayerNorm(d),
            "up": nn.Linear(d, 4 * d), "down": nn.Linear(4 * d, d)}) for _ in range(layers)])
        self.head = nn.Linear(d, 7)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, steps, d = x.shape
        for layer in self.layers:
            parts = layer["qkv"](layer["before"](x)).view(batch, steps, 3, self.heads, d // self.heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, d)
            x = x + layer["out"](seen)
            x = x + layer["down"](nn.functional.gelu(layer["up"](layer["after"](x))))
        return {"action": self.head(x)}


STAGES = {"nothing": (Nothing, (1, 4, 7)), "blocks": (Blocks, (1, 50, 384))}


def policy(name: str) -> Policy:
    torch.manual_seed(0)
    kind, shape = STAGES[name]
    return Policy(name, kind().eval(), {"x": Source("observation")}, {"x": torch.randn(shape)})
