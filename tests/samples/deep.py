"""A policy of equal layers: an encoder of frames, and a decoder whose steps read keys and values of each of its
layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.policy.policy import Policy, Source

WIDTH, TOKENS, HEADS = 32, 16, 2


class Layer(nn.Module):
    def __init__(self, bias: bool = True):
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        self.out, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (t.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm(x)))), k, v


class Deep(nn.Module):
    def __init__(self, layers: int, reads: bool, bias: bool):
        super().__init__()
        self.camera = nn.Conv2d(3, WIDTH, 8, 8)
        self.layers = nn.ModuleList(Layer(bias) for _ in range(layers))
        self.reads, self.query = reads, nn.Linear(7, WIDTH)
        self.head = nn.Linear(WIDTH, 7)

    def forward(self, image, noise):
        x = self.camera(image.permute(0, 3, 1, 2).float() / 255 - 0.5).flatten(2).transpose(1, 2)
        kept = []
        for layer in self.layers:
            x, k, v = layer(x)
            kept.append((k, v))
        for step in range(3):
            q = self.query(noise)
            for k, v in kept if self.reads else ():
                h = q.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
                q = q + F.scaled_dot_product_attention(h, k, v).transpose(1, 2).reshape(q.shape)
            noise = noise + self.head(torch.tanh(q + x.mean(1, keepdim=True))) * (0.1 + 0.1 * step)
        return {"action": noise}


def deep(layers: int = 5, reads: bool = True, bias: bool = True, seed: int = 0) -> Policy:
    """reads: the steps read every layer's keys and values, and what the last layer gives; else that alone."""
    torch.manual_seed(seed)
    inputs = {"image": torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8), "noise": torch.randn(1, 6, 7)}
    sources = {"image": Source("observation"), "noise": Source("step")}
    return Policy("deep", Deep(layers, reads, bias).eval(), sources, inputs)
