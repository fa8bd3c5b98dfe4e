"""A policy whose residual stream has one channel far larger than the others, which carry what actions depend on: one
scale per tensor leaves those a few steps of 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source

TOKENS, WIDTH, STEPS, DIM = 16, 64, 8, 3


class Layer(nn.Module):
    def __init__(self, d: int, heads: int, norm: str):
        super().__init__()
        make = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[norm]
        self.heads, self.one, self.two = heads, make(d), make(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        for made in (self.one, self.two):
            nn.init.uniform_(made.weight, 0.8, 1.2)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.one(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.two(x))))


class Outliers(nn.Module):
    """Channel 11 of every token is `size` larger than the others; no layer makes anything of it."""

    def __init__(self, size: float, norm: str, layers: int = 1):
        super().__init__()
        self.embed = nn.Linear(6, WIDTH)
        place = torch.zeros(TOKENS, WIDTH)
        place[:, 11] = size
        self.place = nn.Parameter(place)
        self.layers = nn.Sequential(*[Layer(WIDTH, 4, norm) for _ in range(layers)])
        self.end, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, STEPS * DIM)
        for reader in (self.head, *(linear for layer in self.layers for linear in (layer.qkv, layer.up))):
            reader.weight.data *= size / WIDTH**0.5  # what a norm makes of the others is as small as that
            reader.weight.data[:, 11] = 0.0

    def forward(self, observation) -> torch.Tensor:
        x = self.layers(self.embed(observation.view(1, TOKENS, 6)) + self.place)
        return self.head(self.end(x).mean(1)).view(1, STEPS, DIM)


def outliers(size: float = 40.0, norm: str = "rms", seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    net = Outliers(size, norm).eval()
    draw = torch.Generator().manual_seed(seed)
    seen = tuple({"observation.state": torch.randn(1, TOKENS * 6, generator=draw)} for _ in range(12))
    return Policy("outliers", lambda **x: {"action": net(*x.values())}, {"observation.state": Source("observation")},
                  seen[0], calibration=seen)
