"""The encoder of VQGAN (Esser et al. 2021, arXiv 2012.09841), as large world models use it: frames to codes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

GROUPS, EPS, RESIDUALS = 32, 1e-6, 2


@dataclass(frozen=True)
class VqganSizes:
    """multiples: of the channels, per level; between two levels the resolution is halved."""

    side: int = 256
    channels: int = 128
    multiples: tuple[int, ...] = (1, 2, 2, 4, 6)
    latent: int = 64
    codes: int = 8192

    @property
    def tokens(self) -> int:
        return (self.side >> (len(self.multiples) - 1)) ** 2


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, channels, EPS), nn.GroupNorm(GROUPS, out, EPS)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.nin_shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(out))) + self.nin_shortcut(x)


class Level(nn.Module):
    def __init__(self, channels: int, out: int, halves: bool):
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(channels if i == 0 else out, out) for i in range(RESIDUALS))
        self.downsample = nn.Conv2d(out, out, 3, 2) if halves else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        return x if self.downsample is None else self.downsample(F.pad(x, (0, 1, 0, 1)))


class VqganEncoder(nn.Module):
    """pixels f32 [n,3,side,side] from -1 to 1 -> codes i64 [n,tokens]"""

    def __init__(self, sizes: VqganSizes):
        super().__init__()
        widths = [sizes.channels * m for m in (1, *sizes.multiples)]
        self.conv_in = nn.Conv2d(3, sizes.channels, 3, 1, 1)
        self.down = nn.ModuleList(Level(a, b, i + 2 < len(widths)) for i, (a, b) in enumerate(pairwise(widths)))
        self.mid = nn.ModuleList(ResnetBlock(widths[-1], widths[-1]) for _ in range(2))
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], sizes.latent, 3, 1, 1)
        self.quant_conv = nn.Conv2d(sizes.latent, sizes.latent, 1)
        self.embeddings = nn.Parameter(torch.randn(sizes.codes, sizes.latent))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """-> [n,tokens,latent], before they are quantised"""
        x = self.conv_in(pixels)
        for part in (*self.down, *self.mid):
            x = part(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(x)))).flatten(2).transpose(1, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The nearest code of each place, by |z|^2 + |e|^2 - 2 z.e."""
        z = self.features(pixels)
        distance = (z**2).sum(-1, keepdim=True) + (self.embeddings**2).sum(-1) - 2 * (z @ self.embeddings.T)
        return distance.argmin(-1)


def signed(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [n,H,W,3] -> f32 [n,3,H,W] from -1 to 1"""
    return frames.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
