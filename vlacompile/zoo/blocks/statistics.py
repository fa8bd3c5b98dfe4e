"""Statistics of a data set as a part of the network: what normalises its numbers, and back. Their content is that of no
real robot."""

from __future__ import annotations

import torch
from torch import nn


class Bounds(nn.Module):
    """low, high [count]: quantiles or extremes, whose range is mapped to [-1, 1] where the mask says so; elsewhere
    numbers stay as they are.

    epsilon: added to the width of the range. kept: how many of the last numbers stay as they are, grippers."""

    def __init__(self, count: int, epsilon: float = 0.0, kept: int = 0):
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("low", -torch.linspace(0.5, 1.5, count))
        self.register_buffer("high", torch.linspace(1.0, 0.7, count))
        self.register_buffer("mask", torch.arange(count) < count - kept)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, 2 * (x - self.low) / (self.high - self.low + self.epsilon) - 1, x)

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, 0.5 * (x + 1) * (self.high - self.low + self.epsilon) + self.low, x)


class Moments(nn.Module):
    """mean, std [count], mapped to 0 and 1. epsilon: added to the deviation."""

    def __init__(self, count: int, epsilon: float = 0.0):
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("mean", torch.linspace(-0.2, 0.3, count))
        self.register_buffer("std", torch.linspace(0.4, 0.8, count))

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / (self.std + self.epsilon)

    def unnormalise(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.std + self.epsilon) + self.mean
