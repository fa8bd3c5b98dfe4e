"""Deformable attention (Zhu et al. 2021, arXiv 2010.04159) and linear attention by cosines (Qin et al. 2022, arXiv
2202.08791); weights named as in their authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class DeformableAttention(nn.Module):
    """Every query reads a map at `points` places about each of its reference points."""

    def __init__(self, width: int, heads: int, levels: int, points: int):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj, self.output_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query: torch.Tensor, reference: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """query [1,q,width], reference [1 or n,q,levels,2] from 0 to 1 within the map, x before y; outside of it is
        zero. source [n,width,h,w] -> [n,q,width]"""
        n, width, h, w = source.shape
        q, each = query.shape[1], width // self.heads
        value = self.value_proj(source.flatten(2).transpose(1, 2)).transpose(1, 2)
        value = value.reshape(n * self.heads, each, h, w)
        offsets = self.sampling_offsets(query).view(-1, q, self.heads, self.levels, self.points, 2)
        at = reference[:, :, None, :, None] + offsets / torch.tensor([w, h], dtype=torch.float32)
        grid = (2 * at - 1).permute(0, 2, 1, 3, 4, 5).expand(n, -1, -1, -1, -1, -1)
        grid = grid.reshape(n * self.heads, q, self.levels * self.points, 2)
        read = F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = self.attention_weights(query).view(-1, q, self.heads, self.levels * self.points).softmax(-1)
        share = share.transpose(1, 2).expand(n, -1, -1, -1).reshape(n * self.heads, 1, q, -1)
        return self.output_proj((read * share).sum(-1).view(n, width, q).transpose(1, 2))


class CosineAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query, which is the key as well, and value [n,q,width] -> the same"""
        n, q, width = query.shape
        heads = lambda x: x.view(n, q, self.heads, -1).transpose(1, 2)
        angle = (torch.pi / 2 * torch.arange(1, q + 1) / q)[:, None]
        turned = lambda x: torch.cat([x * angle.sin(), x * angle.cos()], -1)
        a, b = turned(heads(F.relu(self.q_proj(query)))), turned(heads(F.relu(self.k_proj(query))))
        scale = (a @ b.sum(2, keepdim=True).transpose(2, 3)).clamp(min=1e-6)
        read = a @ (b.transpose(2, 3) @ heads(self.v_proj(value))) / scale
        return self.out_proj(read.transpose(1, 2).reshape(n, q, width))
