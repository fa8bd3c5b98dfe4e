"""Convolutions and what they were calibrated with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.compiler.precision.quantise.quantised_stages import as_stage, draw


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, padding=1), nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4)
        self.c, self.d = nn.Conv1d(12, 6, 5, stride=2, padding=1, bias=False), nn.Linear(6, 4)

    def forward(self, image):
        x = self.b(F.relu(self.a(image))).flatten(2)
        return self.d(self.c(x).transpose(1, 2))


@pytest.fixture(scope="module")
def convolutions():
    torch.manual_seed(0)
    found = as_stage(Convolutions(), image=torch.rand(1, 3, 20, 20))
    return found, tuple((torch.rand(1, 3, 20, 20, generator=draw(i)),) for i in range(6))
