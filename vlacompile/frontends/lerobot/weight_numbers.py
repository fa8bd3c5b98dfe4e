"""Whether the numbers of a checkpoint's weights are what a training writes: real, and finite.

PyTorch copies integers into a parameter as they are, whatever scale they had, and a policy whose training diverged
computes NaN. Must not know policy types.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from vlart.errors import SourceError

_WHOLE = ("I", "U", "BOOL")  # how safetensors' names of such types begin


def require_real_weights(file: Path, policy: nn.Module) -> None:
    """file: safetensors, that the policy was loaded from. Raises SourceError."""
    own = {name for name, weight in policy.named_parameters(remove_duplicate=False) if weight.is_floating_point()}
    with safe_open(file, "pt") as opened:
        for name in (n for n in opened.keys() if n in own):  # noqa: SIM118
            kind = opened.get_slice(name).get_dtype()
            if kind.startswith(_WHOLE):
                raise SourceError(f"{name} is of {kind}", where=str(file),
                                  why="the policy computes with real numbers there",
                                  fix="give the weights as floats; quantized ones after they are scaled back")


def require_finite_weights(file: Path, policy: nn.Module) -> None:
    """Raises SourceError."""
    for name, weight in policy.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            count = int((~torch.isfinite(weight)).sum())
            raise SourceError(f"{name} is not finite", where=str(file),
                              why=f"{count} of {weight.numel()} numbers are NaN or infinite",
                              fix="use weights from before the training diverged")
