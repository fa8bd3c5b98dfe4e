"""ResNet-18 and -34 (He et al. 2016, arXiv 1512.03385) without pooling; weights named as in torchvision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor, film: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """film: scale and shift [1,width,1,1] of the second convolution's output: out * (1 + scale) + shift."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if film is not None:
            out = out * (1 + film[0]) + film[1]
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """pixels f32 [1,3,H,W] -> [1,8*width,H/32,W/32]. layers: of 18 or 34."""

    def __init__(self, layers: int = 18, width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels, self.channels = width, 8 * width
        for i, depth in enumerate(DEPTHS[layers]):
            blocks = []
            for j in range(depth):
                blocks.append(BasicBlock(channels, width * 2**i, 2 if i and j == 0 else 1))
                channels = width * 2**i
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))

    @property
    def blocks(self) -> list[BasicBlock]:
        return [block for i in range(1, 5) for block in getattr(self, f"layer{i}")]

    def forward(self, pixels: torch.Tensor, films: list[tuple[torch.Tensor, torch.Tensor]] | None = None) \
            -> torch.Tensor:
        """films: of every block in order, or None."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(pixels))), 3, 2, 1)
        for i, block in enumerate(self.blocks):
            x = block(x, None if films is None else films[i])
        return x
