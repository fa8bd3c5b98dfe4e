"""Sources whose content the host computes from an instruction and, perhaps, from values that are no sources: a prompt
that spells the robot's state, placeholders of images among the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class HostEncoding:
    """gives: names of sources. reads: {recorded value: its shape, without batch}, in the units of a dataset, sources or
    not. encode: (instruction, {recorded value: f32 [*shape]}) -> {source: tensor shaped as its example}."""

    gives: tuple[str, ...]
    reads: Mapping[str, tuple[int, ...]]
    encode: Callable[[str, Mapping[str, np.ndarray]], Mapping[str, torch.Tensor]]
