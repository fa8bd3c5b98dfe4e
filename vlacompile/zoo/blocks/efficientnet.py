"""EfficientNet (Tan & Le 2019, arXiv 1905.11946) without its classifier; weights named as in transformers. Strided
convolutions are padded as Keras pads them where it does not know the size of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-3
# Of each stage of B0: kernel, blocks, channels, factor of the expansion, stride.
STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2),
          (3, 1, 320, 6, 1))
STEM, TOP, SQUEEZE = 32, 1280, 0.25
Film = tuple[torch.Tensor, torch.Tensor]  # scale and shift [1,channels,1,1]


@dataclass(frozen=True)
class EfficientNetSizes:
    """wide, deep: factors of channels and of blocks; those of B3."""

    wide: float = 1.2
    deep: float = 1.4

    def channels(self, count: int) -> int:
        """Multiples of 8, and no more than a tenth less than asked for."""
        wanted = count * self.wide
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 * (rounded < 0.9 * wanted)

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        return [(k, math.ceil(n * self.deep), self.channels(c), e, s) for k, n, c, e, s in STAGES]


def _padded(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    near = kernel // 2 - (stride > 1)
    return F.pad(x, (near, kernel // 2, near, kernel // 2))


class _Expansion(nn.Module):
    def __init__(self, channels: int, wide: int):
        super().__init__()
        self.expand_conv, self.expand_bn = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.expand_bn(self.expand_conv(x)))


class _Depthwise(nn.Module):
    def __init__(self, wide: int, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(wide, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.depthwise_norm(self.depthwise_conv(_padded(x, self.kernel, self.stride))))


class _Squeeze(nn.Module):
    def __init__(self, channels: int, wide: int):
        super().__init__()
        narrow = max(1, int(channels * SQUEEZE))
        self.reduce, self.expand = nn.Conv2d(wide, narrow, 1), nn.Conv2d(narrow, wide, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))


class _Projection(nn.Module):
    def __init__(self, wide: int, channels: int):
        super().__init__()
        self.project_conv, self.project_bn = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project_bn(self.project_conv(x))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int, factor: int, stride: int):
        super().__init__()
        wide = channels * factor
        self.expansion = _Expansion(channels, wide) if factor > 1 else nn.Identity()
        self.depthwise_conv, self.squeeze_excite = _Depthwise(wide, kernel, stride), _Squeeze(channels, wide)
        self.projection = _Projection(wide, out)
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.projection(self.squeeze_excite(self.depthwise_conv(self.expansion(x))))
        return x + out if self.residual else out


class _Stem(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.convolution, self.batchnorm = nn.Conv2d(3, channels, 3, 2, bias=False), nn.BatchNorm2d(channels, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.batchnorm(self.convolution(_padded(x, 3, 2))))


class _Encoder(nn.Module):
    def __init__(self, sizes: EfficientNetSizes):
        super().__init__()
        channels, blocks = sizes.channels(STEM), []
        for kernel, count, out, factor, stride in sizes.stages():
            for i in range(count):
                blocks.append(_Block(channels, out, kernel, factor, stride if i == 0 else 1))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.top_conv = nn.Conv2d(channels, sizes.channels(TOP), 1, bias=False)
        self.top_bn = nn.BatchNorm2d(sizes.channels(TOP), EPS)


class EfficientNet(nn.Module):
    """pixels f32 [n,3,H,W], normalised -> [n,channels,H/32,W/32]"""

    def __init__(self, sizes: EfficientNetSizes):
        super().__init__()
        self.embeddings, self.encoder = _Stem(sizes.channels(STEM)), _Encoder(sizes)
        self.widths = [out for _, count, out, _, _ in sizes.stages() for _ in range(count)]
        self.channels = sizes.channels(TOP)

    def forward(self, pixels: torch.Tensor, films: Sequence[Film] | None = None) -> torch.Tensor:
        """films: of every block in order, after it: x * (1 + scale) + shift."""
        x = self.embeddings(pixels)
        for i, block in enumerate(self.encoder.blocks):
            x = block(x)
            if films is not None:
                x = x * (1 + films[i][0]) + films[i][1]
        return F.silu(self.encoder.top_bn(self.encoder.top_conv(x)))
