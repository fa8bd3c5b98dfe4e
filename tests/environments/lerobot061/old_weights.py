"""Weights of checkpoints of LeRobot 0.3.3, drawn by their names: what is recorded of a checkpoint needs none."""

from __future__ import annotations

import zlib

import torch

FILLED = {"zeros": torch.zeros, "ones": torch.ones, "tril": lambda shape: torch.tril(torch.ones(shape))}


def weight(name: str, shape: tuple[int, ...] | list[int]) -> torch.Tensor:
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scaled = name.endswith("norm.weight") and "paligemma" not in name
    return 0.05 * torch.randn(tuple(shape), generator=draw) + float(scaled)


def rule_of(tensor: torch.Tensor) -> str | list | None:
    """How `filled` makes a buffer; None if it is a weight."""
    for name, make in FILLED.items():
        if (name != "tril" or tensor.dim() > 1) and torch.equal(tensor, make(tensor.shape).to(tensor.dtype)):
            return name
    return tensor.tolist() if not tensor.is_floating_point() and tensor.numel() < 64 else None


def filled(dtype: str, shape: list[int], rule: str | list) -> torch.Tensor:
    return (torch.tensor(rule) if isinstance(rule, list) else FILLED[rule](shape)).to(getattr(torch, dtype))
