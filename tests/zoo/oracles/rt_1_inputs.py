"""What RT-1's original and the zoo's module are given, and weights by the names of the original's variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.zoo.oracles.recorded import grey_levels, numbers, weight_of_flax
from vlacompile.zoo.blocks.efficientnet import EfficientNetSizes
from vlacompile.zoo.systems.rt_1 import WINDOW, Sizes

RECORDED = Path(__file__).with_name("rt_1.json")
# small, but where the authors' code has a width of its own
SIZES = Sizes(64, 80, 76, EfficientNetSizes(0.25, 1.4), film=512, width=512, depth=2, heads=4, head_dim=8,
              bottleneck=64)
PASSES = 1.5  # of the kernels: what they lose by the activations behind them
STEPS = WINDOW + 1  # the last one has a window that has moved on
FRAMES = grey_levels(1, STEPS, SIZES.height, SIZES.breadth, 3)
TEXTS = 0.3 * numbers(2, STEPS, SIZES.film)  # another instruction with every frame


def weight_of_keras(name: str, shape: Sequence[int]) -> torch.Tensor:
    """As trained ones: variances positive, and frames come through all blocks."""
    drawn = weight_of_flax(name, shape)
    if name.endswith((".mean", "layer_with_weights-0.variance")):
        return drawn.abs() * 0.5 + 0.2
    if name.endswith("moving_variance"):
        return drawn.abs() + 0.5
    if name.endswith("depthwise_kernel"):  # of a channel's own inputs
        return PASSES * drawn * (shape[2] / (shape[0] * shape[1])) ** 0.5
    if "_projection_add" in name:
        return 0.3 * drawn
    return (PASSES if len(shape) == 4 else 1.0) * drawn + float(name.endswith("gamma"))
