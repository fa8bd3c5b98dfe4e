"""Policies with an op that a version of TensorRT has not: powers of integers are rejected by 10.3 only."""

from __future__ import annotations

import torch

import vlacompile as vc


class Powers(torch.nn.Module):
    def forward(self, x):
        return torch.pow((x * 3).int(), (x * 2).int()).float()


class Filtered(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.conv1d((x * 9).int().reshape(1, 1, 16), torch.ones(1, 1, 3).int(), padding=1) * 1.0


class Products(torch.nn.Module):
    def forward(self, x):
        rows = (x * 10).long().reshape(16, 1).repeat(16, 128)
        return (rows @ torch.ones(128, 256).long()).amax(1, keepdim=True) * 1.0


class Whole(torch.nn.Module):
    """A policy's function around one of them."""

    def __init__(self, part: type[torch.nn.Module]):
        super().__init__()
        self.part = part()

    def forward(self, x):
        return {"action": self.part(x * 2.0).reshape(1, 1, -1)}


def policy(part: type[torch.nn.Module]) -> vc.Policy:
    return vc.Policy("p", Whole(part).eval(), {"x": vc.Source("observation")}, {"x": torch.rand(1, 16)})
