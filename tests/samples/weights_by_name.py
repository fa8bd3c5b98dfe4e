"""Weights drawn by their names, so that a checkpoint is known by names and shapes alone."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch


def weight(name: str, shape: Sequence[int]) -> torch.Tensor:
    """It passes on what it gets, as a trained one does: a fresh model's actions hardly depend on what it sees."""
    drawn = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) < 2:
        return 0.1 * drawn + float(name.endswith("weight"))
    return drawn / (shape[1] if name.endswith(".W") else drawn[0].numel()) ** 0.5


def draw_weights(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = weight(name, parameter.shape)
