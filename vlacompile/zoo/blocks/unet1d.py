"""The one-dimensional U-Net of Diffusion Policy (Chi et al. 2023, arXiv 2303.04137) in the variant of DROID's code:
FiLM by scale * x + bias, in every block, from the timestep and from an observation with the state. Weights have the
names of that code.
"""

from __future__ import annotations

import math

import torch
from torch import nn

STEP, GROUPS, KERNEL = 256, 8, 5


class StepEmbedding(nn.Module):
    """Sines and cosines of the timestep, computed in bfloat16 as the original does."""

    def __init__(self, width: int):
        super().__init__()
        self.half = width // 2

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        scale = math.log(10000) / (self.half - 1)
        frequencies = torch.exp(torch.arange(self.half, dtype=torch.bfloat16) * -scale)
        angles = timestep.to(torch.bfloat16) * frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], -1).float()


class _Conv(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(channels, width, KERNEL, padding=KERNEL // 2), nn.GroupNorm(GROUPS, width),
                                   nn.Mish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, condition: int):
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList([_Conv(channels, width), _Conv(width, width)])
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * width))
        self.residual_conv = nn.Conv1d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, bias = self.cond_encoder(condition)[..., None].split(self.width, 1)
        return self.blocks[1](scale * self.blocks[0](x) + bias) + self.residual_conv(x)


class _Resample(nn.Module):
    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def _down(width: int) -> nn.Module:
    return _Resample(nn.Conv1d(width, width, 3, 2, 1))


def _up(width: int) -> nn.Module:
    return _Resample(nn.ConvTranspose1d(width, width, 4, 2, 1))


class ConditionalUnet(nn.Module):
    """widths: of the levels, from fine to coarse. step: width of the timestep's embedding."""

    def __init__(self, action: int, condition: int, state: int, widths: tuple[int, ...], step: int = STEP):
        super().__init__()
        self.norm_after_pool, self.combine = nn.LayerNorm(condition), nn.Linear(condition + state, condition)
        self.diffusion_step_encoder = nn.Sequential(StepEmbedding(step), nn.Linear(step, step * 4), nn.Mish(),
                                                    nn.Linear(step * 4, step))
        both, top = step + condition, len(widths) - 1
        levels = list(zip((action, *widths[:-1]), widths, strict=True))
        self.mid_modules = nn.ModuleList(_Block(widths[-1], widths[-1], both) for _ in range(2))
        self.down_modules = nn.ModuleList(
            nn.ModuleList([_Block(a, b, both), _Block(b, b, both), _down(b) if i < top else nn.Identity()])
            for i, (a, b) in enumerate(levels))
        self.up_modules = nn.ModuleList(
            nn.ModuleList([_Block(b * 2, a, both), _Block(a, a, both), _up(a)]) for a, b in reversed(levels[1:]))
        self.final_conv = nn.Sequential(_Conv(widths[0], widths[0]), nn.Conv1d(widths[0], action, 1))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, seen: torch.Tensor, state: torch.Tensor) \
            -> torch.Tensor:
        """sample [1,H,D], timestep [], seen [1,c], state [1,s] -> [1,H,D]"""
        seen = self.combine(torch.cat([self.norm_after_pool(seen), state], -1))
        condition = torch.cat([self.diffusion_step_encoder(timestep[None, None]), seen], -1)
        x, kept = sample.transpose(1, 2), []
        for first, second, down in self.down_modules:
            x = second(first(x, condition), condition)
            kept.append(x)
            x = down(x)
        for block in self.mid_modules:
            x = block(x, condition)
        for first, second, up in self.up_modules:
            x = torch.cat([x, kept.pop()], 1)
            x = up(second(first(x, condition), condition))
        return self.final_conv(x).transpose(1, 2)
