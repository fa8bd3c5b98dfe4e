"""Parameters of Flax and of Keras as PyTorch's: a kernel is a transposed weight, heads are a dimension of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch

Rules = Sequence[tuple[str, str]]
_LEAVES = {"scale": "weight", "embedding": "weight", "kernel": "weight", "depthwise_kernel": "weight",
           "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def renamed(rules: Rules) -> Callable[[str], tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """What `TensorFiles.changed` takes. rules: (pattern, replacement), applied in turn to a name without its last part,
    which becomes weight or bias."""

    def change(name: str) -> tuple[str, Callable[[torch.Tensor], torch.Tensor]]:
        owner, _, leaf = name.rpartition(".")
        ours = owner
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        last = ours.rpartition(".")[2]
        ours = f"{ours}.{_LEAVES.get(leaf, leaf)}" if ours else _LEAVES.get(leaf, leaf)
        if leaf == "depthwise_kernel":
            return ours, _weight_of_depths
        return ours, _weight_of_heads if leaf == "kernel" and last in ("query", "key", "value") else (
            _weight if leaf == "kernel" else torch.flatten if last in ("query", "key", "value") else _same)

    return change


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _weight_of_heads(x: torch.Tensor) -> torch.Tensor:
    """[width,heads,dim] -> [heads*dim,width]"""
    return x.flatten(1).T


def _weight_of_depths(x: torch.Tensor) -> torch.Tensor:
    """[h,w,channels,1] -> [channels,1,h,w]"""
    return x.permute(2, 3, 0, 1)


def _weight(x: torch.Tensor) -> torch.Tensor:
    """Of a norm [width], a dense layer [in,out], a convolution [h,w,in,out], of what joins heads [heads,dim,out]."""
    if x.dim() == 1:
        return x
    return x.permute(3, 2, 0, 1) if x.dim() == 4 else x.flatten(0, -2).T
