"""CLIP's vision transformer (Radford et al. 2021, arXiv 2103.00020); weights named as in transformers' CLIPVisionModel.

Its users read the features after the last layer but one, so the last layer and the norm behind it have weights and are
not computed.
"""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.zoo.blocks.vision_tower import TowerEncoder, TowerSizes, quick_gelu

EPS = 1e-5


class _Embeddings(nn.Module):
    def __init__(self, sizes: TowerSizes):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(sizes.width))
        self.patch_embedding = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=False)
        self.position_embedding = nn.Embedding(sizes.rows**2 + 1, sizes.width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding[None, None], patches], 1) + self.position_embedding.weight


class ClipVision(nn.Module):
    """pixels f32 [1,3,side,side] -> patches [1,(side/patch)^2,width] after the last layer but one."""

    def __init__(self, sizes: TowerSizes):
        super().__init__()
        self.embeddings, self.encoder = _Embeddings(sizes), TowerEncoder(sizes, quick_gelu, EPS)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(sizes.width, EPS), nn.LayerNorm(sizes.width, EPS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.pre_layrnorm(self.embeddings(pixels))
        for layer in list(self.encoder.layers)[:-1]:
            x = layer(x)
        return x[:, 1:]
