"""DiVLA's injection of reasoning (Wen et al. 2024, arXiv 2412.03293): the mean feature of what the model was asked is
scaled and shifted by what it answered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _Projector(nn.Module):
    """hidden states [1,n,width], weighed by a mask bool [1,n] -> [1,width]"""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.fc2(F.gelu(self.fc1(mean)))


class ReasoningInjection(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.input_action_proj, self.reasoning_action_proj = _Projector(width), _Projector(width)
        self.scale, self.shift = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, asked: tuple[torch.Tensor, torch.Tensor], answered: tuple[torch.Tensor, torch.Tensor]) \
            -> torch.Tensor:
        """asked, answered: hidden states [1,n,width] and their masks bool [1,n] -> [1,width]"""
        x, reasoning = self.input_action_proj(*asked), self.reasoning_action_proj(*answered)
        return x * (1 + self.scale(reasoning)) + self.shift(reasoning)
