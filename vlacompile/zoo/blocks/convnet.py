"""A residual convolutional network whose last three levels are read, and a single-stage detector on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

STRIDES = (8, 16, 32)  # of the levels


class ConvNorm(nn.Module):
    def __init__(self, channels: int, width: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.norm(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(ConvNorm(width, width // 2, 1), ConvNorm(width // 2, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class ConvPyramid(nn.Module):
    """pixels f32 [1,3,H,W] -> maps [1,widths[i],H/s,W/s] of the strides s 8, 16 and 32.

    widths: of strides 2, 4, 8, 16 and 32. depths: residual blocks behind each of the last four."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]):
        super().__init__()
        self.widths = tuple(widths[-len(STRIDES):])
        self.stem = ConvNorm(3, widths[0], 3, 2)
        self.levels = nn.ModuleList(
            nn.Sequential(ConvNorm(a, b, 3, 2), *(Residual(b) for _ in range(depth)))
            for a, b, depth in zip(widths, widths[1:], depths, strict=False))

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.stem(pixels)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[-len(STRIDES):]


class Detector(nn.Module):
    """A single-stage detector without anchors: every place of every level proposes one box and a score per class (as
    in FCOS, Tian et al. 2019, arXiv 1904.01355), and the best are kept without suppression of neighbours (as trained
    with one proposal per object). Levels exchange features from coarse to fine."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], classes: int, kept: int):
        super().__init__()
        self.kept, self.classes, self.pyramid = kept, classes, ConvPyramid(widths, depths)
        width = self.pyramid.widths[0]
        self.sides = nn.ModuleList(ConvNorm(w, width, 1) for w in self.pyramid.widths)
        self.shared = nn.Sequential(ConvNorm(width, width), ConvNorm(width, width))
        self.scores, self.extents = nn.Conv2d(width, classes, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pixels f32 [1,3,H,W] -> (boxes [1,kept,6]: left, top, right, bottom in pixels, score, class; scores of all
        classes at all places [1,places,classes])."""
        boxes, scores = [], []
        above = None
        for stride, side, level in reversed(list(zip(STRIDES, self.sides, self.pyramid(pixels), strict=True))):
            x = side(level)
            x = above = x if above is None else x + F.interpolate(above, scale_factor=2.0, mode="nearest")
            x = self.shared(x)
            scores.append(self.scores(x).flatten(2).transpose(1, 2).sigmoid())
            boxes.append(_boxes(F.softplus(self.extents(x)), stride))
        everywhere, found = torch.cat(scores, 1), torch.cat(boxes, 1)
        score, kind = everywhere.max(-1)
        score, place = score.topk(self.kept, dim=1)
        chosen = [found.gather(1, place[..., None].expand(-1, -1, 4)), score[..., None],
                  kind.gather(1, place)[..., None].to(torch.float32)]
        return torch.cat(chosen, -1), everywhere


def _boxes(extents: torch.Tensor, stride: int) -> torch.Tensor:
    """Distances to the four sides in strides [1,4,h,w] -> corners in pixels [1,h*w,4]."""
    height, width = extents.shape[-2:]
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    left, top, right, bottom = extents[0].unbind(0)
    corners = torch.stack([x - left, y - top, x + right, y + bottom], -1) * stride
    return corners.reshape(1, height * width, 4)
