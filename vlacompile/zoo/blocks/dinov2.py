"""DINOv2 without registers (Oquab et al. 2023, arXiv 2304.07193), for frames of any sides that its patches divide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.vision_transformer import VisionSizes, VisionTransformer

SMALL = VisionSizes(384, 12, 6, 1536, 14, 518, scaled=True, final=True)


class DinoV2(VisionTransformer):
    """pixels f32 [1,3,H,W] -> tokens [1,H/patch*W/patch,width]. Positions are those of a square frame, stretched."""

    def __init__(self, sizes: VisionSizes = SMALL):
        super().__init__(sizes)
        self.patch, self.places = sizes.patch, sizes.side // sizes.patch
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.tokens, sizes.width) * 0.02)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))

    def forward(self, pixels: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        grid = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.places, self.places))
        sides = [side // self.patch for side in pixels.shape[-2:]]
        places = F.interpolate(grid, sides, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token + self.pos_embed[:, :1], self.patch_embed(pixels) + places], 1)
        for block in self.blocks:
            x = block(x, condition)
        return self.norm(x)[:, 1:]
