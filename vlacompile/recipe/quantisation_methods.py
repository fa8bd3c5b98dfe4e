"""What a layer may be quantised by: the one list of each, for the recipe that asks and for the code that does it.

Imports nothing, so that a recipe is checked without PyTorch.
"""

from __future__ import annotations

CALIBRATORS = ("minmax", "percentile", "entropy", "mse")  # of the range of activations (Histogram.threshold)
ROUNDINGS = ("rtn", "awq", "gptq")  # of INT4
BLOCKS = (32, 64, 128)  # numbers along K that share a scale of INT4; kernels exist for these


def is_percentile(value: float) -> bool:
    """Of magnitudes that are not clipped, in per cent."""
    return 50 < value <= 100


def is_alpha(value: float) -> bool:
    """0 leaves activations as they are, 1 makes their channels equal (SmoothQuant)."""
    return 0 <= value <= 1
