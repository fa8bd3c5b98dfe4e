"""The encoder of a masked autoencoder (He et al. 2022, arXiv 2111.06377), without masking; weights named as in timm."""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer

BASE = VisionSizes(768, 12, 12, 3072, 16, 224, final=True)


class Mae(VisionTransformer):
    """pixels f32 [n,3,side,side] -> (class token [n,width], patches [n,N,width])"""

    def __init__(self, sizes: VisionSizes = BASE):
        super().__init__(sizes)
        self.cls_token = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.tokens, sizes.width))

    def forward(self, pixels: torch.Tensor, condition: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.patch_embed(pixels)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x, condition)
        x = self.norm(x)
        return x[:, 0], x[:, 1:]
