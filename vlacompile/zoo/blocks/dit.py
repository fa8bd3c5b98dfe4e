"""Diffusion transformers (Peebles and Xie 2023, arXiv 2212.09748) over the actions of a chunk; weights have the names
of that paper's code. ScaleDP (DexVLA, arXiv 2502.05855) modulates every block by the timestep and the observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPS, SINES, COMBINED = 1e-6, 256, 1024


@dataclass(frozen=True)
class DitSizes:
    width: int
    depth: int
    heads: int

    @property
    def hidden(self) -> int:
        return 4 * self.width


class TimestepEmbedder(nn.Module):
    """dtype: in which cosines and sines are computed."""

    def __init__(self, width: int, sines: int = SINES, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.half, self.dtype = sines // 2, dtype
        self.mlp = nn.Sequential(nn.Linear(sines, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        """timestep [] -> [1,width]"""
        frequencies = torch.exp(-math.log(10000) * torch.arange(self.half, dtype=torch.float32) / self.half)
        angles = timestep.to(self.dtype)[None, None] * frequencies.to(self.dtype)[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1).float())


class DitAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class DitMlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


class ModulatedBlock(nn.Module):
    def __init__(self, sizes: DitSizes):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(sizes.width, EPS, elementwise_affine=False) for _ in range(2))
        self.attn, self.mlp = DitAttention(sizes.width, sizes.heads), DitMlp(sizes.width, sizes.hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(sizes.width, 6 * sizes.width))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(condition).chunk(6, -1)
        x = x + gate[:, None] * self.attn(_modulated(self.norm1(x), shift, scale))
        return x + gate_mlp[:, None] * self.mlp(_modulated(self.norm2(x), shift_mlp, scale_mlp))


class PlainBlock(nn.Module):
    def __init__(self, sizes: DitSizes):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(sizes.width, EPS, elementwise_affine=False) for _ in range(2))
        self.attn, self.mlp = DitAttention(sizes.width, sizes.heads), DitMlp(sizes.width, sizes.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _FinalLayer(nn.Module):
    def __init__(self, width: int, action: int):
        super().__init__()
        self.norm_final, self.linear = nn.LayerNorm(width, EPS, elementwise_affine=False), nn.Linear(width, action)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, -1)
        return self.linear(_modulated(self.norm_final(x), shift, scale))


class ScaleDp(nn.Module):
    """The noise of a chunk. condition, state: widths of what it depends on."""

    def __init__(self, sizes: DitSizes, action: int, horizon: int, condition: int, state: int,
                 combined: int = COMBINED, sines: int = SINES):
        super().__init__()
        width = sizes.width
        self.combine = nn.Sequential(nn.Linear(condition + state, combined), nn.ReLU(), nn.Linear(combined, combined),
                                     nn.ReLU(), nn.Linear(combined, condition))
        self.x_embedder, self.cond_obs_emb = nn.Linear(action, width), nn.Linear(condition, width)
        self.t_embedder = TimestepEmbedder(width, sines, torch.bfloat16)
        self.pos_embed = nn.Parameter(torch.randn(1, horizon, width) * 0.02)
        self.blocks = nn.ModuleList(ModulatedBlock(sizes) for _ in range(sizes.depth))
        self.final_layer = _FinalLayer(width, action)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, seen: torch.Tensor, state: torch.Tensor) \
            -> torch.Tensor:
        """sample [1,H,D], timestep [], seen [1,c], state [1,s] -> [1,H,D]"""
        seen = self.combine(torch.cat([seen, state], -1))
        condition = self.t_embedder(timestep) + self.cond_obs_emb(seen)
        x = self.x_embedder(sample) + self.pos_embed
        for block in self.blocks:
            x = block(x, condition)
        return self.final_layer(x, condition)
