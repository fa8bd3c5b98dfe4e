"""The rounding error of eager fp32 PyTorch itself: a lower bound of any parity figure.

Where the policy switches the gripper, its gain is large, and on a few observations fp32 rounding alone moves an action
by 1e-4. There a bundle may differ from PyTorch by as much as two fp32 evaluations do.
"""

from __future__ import annotations

import copy

import torch

from examples.libero_goal.policy import STATE, LateFusionPolicy


class Exact:
    """The same module in float64."""

    def __init__(self, module: LateFusionPolicy):
        self.module = module
        self.double = copy.deepcopy(module).double()

    def own_rounding(self, inputs: dict[str, torch.Tensor]) -> float:
        """Largest |fp32 - float64| over the chunk, robot units."""
        with torch.no_grad():
            return self.error(inputs, self.module(**inputs)["action"])

    def limit(self, inputs: dict[str, torch.Tensor], max_abs: float, recorded: float = 0.0) -> float:
        """`max_abs`, or twice PyTorch's own rounding error if that is larger. recorded: the error of the processor that
        recorded the chunks; the larger of both counts."""
        return max(max_abs, 2.0 * max(self.own_rounding(inputs), recorded))

    def error(self, inputs: dict[str, torch.Tensor], chunk: torch.Tensor) -> float:
        """Largest |chunk - float64|, robot units."""
        with torch.no_grad():
            exact = self.double(**{**inputs, STATE: inputs[STATE].double()})["action"]
        return float((chunk.double().reshape(exact.shape) - exact).abs().max())

