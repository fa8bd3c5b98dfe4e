"""SigLIP's vision tower (Zhai et al. 2023, arXiv 2303.15343) without pooling, and the pixel shuffle behind it in
vision-language models. Weights are named as in transformers' SiglipVisionTransformer.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.zoo.blocks.vision_tower import TowerEncoder, TowerSizes

EPS = 1e-6
gelu = functools.partial(F.gelu, approximate="tanh")
SO400M = TowerSizes(1152, 27, 16, 4304, 14, 224)
BASE = TowerSizes(768, 12, 12, 3072, 16, 512)


class _Embeddings(nn.Module):
    def __init__(self, sizes: TowerSizes):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch)
        self.position_embedding = nn.Embedding(sizes.rows**2, sizes.width)

    def forward(self, pixels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding(places)[None]


class Siglip(nn.Module):
    """pixels f32 [1,3,side,side] in [-1, 1] -> [1,rows^2,width]. places: the learned position of each patch i64
    [rows^2], or None: in order."""

    def __init__(self, sizes: TowerSizes, places: torch.Tensor | None = None):
        super().__init__()
        self.embeddings = _Embeddings(sizes)
        self.encoder = TowerEncoder(sizes, gelu, EPS)
        self.post_layernorm = nn.LayerNorm(sizes.width, EPS)
        in_order = torch.arange(sizes.rows**2)
        self.register_buffer("places", in_order if places is None else places, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.embeddings(pixels, self.places)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


def pixel_shuffle(x: torch.Tensor, factor: int) -> torch.Tensor:
    """[1,n*n,c] -> [1,(n/factor)^2,c*factor^2]: squares of neighbours become one token, row by row."""
    rows = round(x.shape[1] ** 0.5)
    x = x.view(1, rows // factor, factor, rows // factor, factor, -1).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(1, (rows // factor) ** 2, -1)
