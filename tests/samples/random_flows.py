"""Random small flow-matching policies: what their builds may not do is refuse themselves by chance.

Owns the generator. Widths, depths, norms, steps, horizons and units of the actions differ; weights are random.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source

# Scale and offset of an action as functions often return it: radians, degrees, millimetres, ticks, per cent.
UNITS = ((1.0, 0.0), (0.5, 0.1), (60.0, 0.0), (150.0, 400.0), (600.0, 2048.0), (50.0, 50.0))


class Block(nn.Module):
    """Pre-norm attention over the noisy actions and their context, then a gated or plain MLP."""

    def __init__(self, width: int, heads: int, gated: bool, rms: bool):
        super().__init__()
        self.heads, self.gated, self.rms = heads, gated, rms
        self.scale = nn.Parameter(1 + 0.2 * torch.randn(width))
        self.query, self.context = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.up = nn.Linear(width, width), nn.Linear(width, (4 if gated else 2) * width)
        self.down = nn.Linear(2 * width, width)

    def norm(self, x):
        if self.rms:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale
        return F.layer_norm(x, x.shape[-1:], self.scale)

    def forward(self, x, context):
        h = self.norm(x)
        key, value = self.context(torch.cat([context, h], 1)).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(h), key, value))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = self.up(self.norm(x))
        if self.gated:
            gate, h = h.chunk(2, -1)
            h = F.silu(gate) * h
        else:
            h = F.gelu(h)
        return x + self.down(h)


class Flow(nn.Module):
    """draw: decides the architecture; the weights follow torch's generator."""

    def __init__(self, draw: random.Random):
        super().__init__()
        width, heads = draw.choice([(16, 2), (24, 2), (32, 4), (48, 4)])
        self.steps, self.horizon = draw.choice([2, 3, 4]), draw.choice([1, 1, 4, 8])
        self.dim, self.width = draw.choice([1, 1, 2, 6, 7]), width
        self.scale, self.offset = draw.choice(UNITS)
        self.image = draw.random() < 0.6
        self.state, self.noisy, self.out = nn.Linear(8, width), nn.Linear(self.dim, width), nn.Linear(width, self.dim)
        self.conv = nn.Conv2d(3, width, 4, stride=4)
        self.value = nn.Linear(width, 1) if draw.random() < 0.3 else None
        gated, rms = draw.random() < 0.5, draw.random() < 0.5
        self.blocks = nn.ModuleList(Block(width, heads, gated, rms) for _ in range(draw.choice([1, 1, 2])))
        large = draw.choice([1.0, 1.0, 3.0, 30.0])  # of the residual stream
        with torch.no_grad():
            for block in self.blocks:
                block.down.weight *= large

    def forward(self, state, noise, image=None):
        context = self.state(state)[:, None]
        if image is not None:
            pixels = F.gelu(self.conv(image.permute(0, 3, 1, 2).float() / 127.5 - 1))
            context = torch.cat([context, pixels.flatten(2).transpose(1, 2)], 1)
        x = noise
        for k in range(self.steps):
            t = 1 - k / self.steps
            angle = t * torch.arange(1, self.width + 1) * 0.5
            h = self.noisy(x) + angle.sin()
            for block in self.blocks:
                h = block(h, context)
            x = x - self.out(F.layer_norm(h, h.shape[-1:])) / self.steps
        found = {"action": x * self.scale + self.offset}
        return found if self.value is None else found | {"value": self.value(context).mean(1)}


def random_flow(seed: int) -> Policy:
    torch.manual_seed(seed)
    net = Flow(random.Random(seed)).eval().requires_grad_(False)
    inputs = {"state": torch.randn(1, 8), "noise": torch.randn(1, net.horizon, net.dim)}
    sources = {"state": Source("observation"), "noise": Source("step")}
    if net.image:
        inputs["image"] = torch.randint(0, 256, (1, 16, 16, 3)).to(torch.uint8)
        sources["image"] = Source("observation")
    return Policy(f"flow{seed}", net, sources, inputs, outputs=("action",) + (("value",) if net.value else ()))
