"""Policies with an op that TensorRT has not."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import vlacompile as vc


class Bits(torch.nn.Module):
    def forward(self, x):
        return torch.bitwise_and((x * 10).int(), 3).float()


class Resized(torch.nn.Module):
    def forward(self, x):
        return F.interpolate(x.reshape(1, 1, 4, 4), size=(2, 2), mode="bilinear", antialias=True)


class Folded(torch.nn.Module):
    def forward(self, x):
        return F.fold(x.reshape(1, 4, 4), (4, 4), 2, stride=2)


class InBytes(torch.nn.Module):
    def forward(self, x):
        return (x.to(torch.uint8) // 2).float()


class Whole(torch.nn.Module):
    """A policy's function around one of them."""

    def __init__(self, part: type[torch.nn.Module]):
        super().__init__()
        self.part = part()

    def forward(self, x):
        return {"action": self.part(x * 2.0).reshape(1, 1, -1)}


def policy(part: type[torch.nn.Module]) -> vc.Policy:
    return vc.Policy("p", Whole(part).eval(), {"x": vc.Source("observation")}, {"x": torch.rand(1, 16)})
