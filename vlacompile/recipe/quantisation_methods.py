"""Methods of quantisation: one list of each kind, shared by the recipe and by the code that implements them.

Imports nothing, so that a recipe can be checked without PyTorch.
"""

from __future__ import annotations

CALIBRATORS = ("minmax", "percentile", "entropy", "mse")  # for the range of activations (Histogram.threshold)
ROUNDINGS = ("rtn", "awq", "gptq")  # for INT4 weights
BLOCKS = (32, 64, 128)  # INT4 weights along K that share a scale; kernels exist for these sizes


def is_percentile(value: float) -> bool:
    """Valid as the percentage of magnitudes that are not clipped."""
    return 50 < value <= 100


def is_alpha(value: float) -> bool:
    """Valid as SmoothQuant's alpha: 0 leaves activations as they are, 1 equalises their channels."""
    return 0 <= value <= 1
