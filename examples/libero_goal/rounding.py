"""The rounding error of fp32 evaluations of a policy: a lower bound of any parity figure.

Where the policy switches the gripper, its gain is large, and on a few observations fp32 rounding alone moves an action
by 1e-4. There a bundle may differ from PyTorch by as much as two fp32 evaluations do. How far these are apart depends
on the order of sums, and so on the processor: one evaluation is one draw of it, often a lucky one. Others are drawn by
rounding the result of every layer anew.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

from examples.libero_goal.policy import STATE, LateFusionPolicy

DRAWS = 4
LAST_PLACE = 2.0 ** -23  # of fp32, relative


class Exact:
    """The same module in float64."""

    def __init__(self, module: LateFusionPolicy):
        self.module = module
        self.double = copy.deepcopy(module).double()

    def own_rounding(self, inputs: dict[str, torch.Tensor]) -> float:
        """Largest |fp32 - float64| over the chunk, robot units: of eager PyTorch here, and of DRAWS evaluations in
        which the result of every layer is off by up to a unit in its last place."""
        with torch.no_grad():
            exact = self.double(**{**inputs, STATE: inputs[STATE].double()})["action"]
            evaluations = [self.module(**inputs)["action"]]
            for seed in range(DRAWS):
                with _rounded_anew(self.module, seed):
                    evaluations.append(self.module(**inputs)["action"])
        return max(float((e.double() - exact).abs().max()) for e in evaluations)

    def limit(self, inputs: dict[str, torch.Tensor], max_abs: float) -> float:
        """`max_abs`, or twice the rounding error of fp32 if that is larger."""
        return max(max_abs, 2.0 * self.own_rounding(inputs))


@contextlib.contextmanager
def _rounded_anew(module: nn.Module, seed: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(seed)

    def rounded(_layer, _inputs, result):
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            places = 2.0 * torch.rand(result.shape, generator=generator, dtype=result.dtype) - 1.0
            return result * (1.0 + LAST_PLACE * places)
        return None

    layers = [m for m in module.modules() if not list(m.children())]
    hooks = [layer.register_forward_hook(rounded) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
