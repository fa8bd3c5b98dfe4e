"""Weights of checkpoints of LeRobot 0.3.3, drawn by their names: what is recorded of a checkpoint needs none."""

from __future__ import annotations

import math
import zlib

import torch

from tests.samples import weights_by_name

NOISE = {  # what a policy is given: {its name: shape}
    "smolvla": {"noise": [1, 8, 32]}, "vqbet": {"noise.choices": [1, 14]}, "pi0": {"noise": [1, 50, 32]}, "act": {},
    "diffusion": {"noise": [1, 16, 6], "noise.steps": [5, 16, 6]}}
RESNETS = ("act", "diffusion")  # drawn so that their actions depend on the frames


def grid(shape: tuple[int, ...] | list[int]) -> torch.Tensor:
    """(x, y) of every cell of a square, in [-1, 1]."""
    side = torch.linspace(-1, 1, math.isqrt(shape[0]))
    return torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)[:shape[0]]


FILLED = {"zeros": torch.zeros, "ones": torch.ones, "tril": lambda shape: torch.tril(torch.ones(shape)), "grid": grid}


def weight(kind: str, name: str, shape: tuple[int, ...] | list[int]) -> torch.Tensor:
    if kind in RESNETS:
        given = shape[1] ** 0.5 if name.endswith("embed.weight") else 1.0  # added to what is computed, not multiplied
        return given * weights_by_name.weight(name, shape) + float(name.endswith("running_var"))
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scaled = name.endswith("norm.weight") and "paligemma" not in name
    return 0.05 * torch.randn(tuple(shape), generator=draw) + float(scaled)


def rule_of(tensor: torch.Tensor) -> str | list | None:
    """How `filled` makes a buffer; None if it is a weight."""
    for name, make in FILLED.items():
        if (name not in ("tril", "grid") or tensor.dim() > 1) and torch.equal(
                tensor, make(tensor.shape).to(tensor.dtype)):
            return name
    return tensor.tolist() if not tensor.is_floating_point() and tensor.numel() < 64 else None


def filled(dtype: str, shape: list[int], rule: str | list) -> torch.Tensor:
    return (torch.tensor(rule) if isinstance(rule, list) else FILLED[rule](shape)).to(getattr(torch, dtype))
