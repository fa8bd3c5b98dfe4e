"""What a policy type keeps from one chunk to the next by design: an input of the compiled policy, and an output.

A graph keeps nothing. Who runs it writes the output of a chunk into the input before the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Memory:
    """attribute: of the policy object, a tensor once there was a chunk. name: of the input; the output is called
    `name`.next. keeps: whether a policy of this configuration uses it. shape: of the tensor, given the configuration.
    At the beginning of an episode it is zero."""

    attribute: str
    name: str
    keeps: Callable[[Any], bool]
    shape: Callable[[Any], tuple[int, ...]]

    @property
    def output(self) -> str:
        return f"{self.name}.next"

    def of(self, policy: nn.Module) -> torch.Tensor | None:
        return getattr(policy, self.attribute)

    def put(self, policy: nn.Module, value: torch.Tensor | None) -> None:
        setattr(policy, self.attribute, value)

    def note(self) -> str:
        """For a person who runs the compiled policy."""
        return (f'"{self.output}" of each chunk is to be written into "{self.name}" before the next one; at the '
                "beginning of an episode, zeros")


_MEMORIES = {
    # the planner begins with the plan that it ended with, one step on
    "tdmpc": Memory("_prev_mean", "planner.mean", lambda config: config.use_mpc,
                    lambda config: (config.horizon, 1, config.action_feature.shape[0])),
}


def memory_of(config: Any) -> Memory | None:
    found = _MEMORIES.get(config.type)
    return found if found is not None and found.keeps(config) else None
