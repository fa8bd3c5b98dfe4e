"""Policies for the command line's tests: one that builds in seconds, and one per way to be wrong."""

from __future__ import annotations

import torch
from torch import nn

from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.policy.policy import Policy, Source


class Tiny(nn.Module):
    """A task vector and a state; a chunk of four actions."""

    def __init__(self):
        super().__init__()
        self.task, self.state, self.head = nn.Linear(8, 16), nn.Linear(4, 16), nn.Linear(16, 8)

    def forward(self, task, state) -> dict[str, torch.Tensor]:
        return {"action": torch.tanh(self.head(self.task(task) + self.state(state))).view(1, 4, 2)}


class Branching(Tiny):
    def forward(self, task, state) -> dict[str, torch.Tensor]:
        if state.sum() > 0:  # the line that cannot be traced
            state = -state
        return super().forward(task, state)


def _policy(module: nn.Module) -> Policy:
    return Policy("tiny", module.eval(), {"task": Source("task"), "state": Source("observation")},
                  {"task": torch.linspace(-1, 1, 8)[None], "state": torch.linspace(0, 1, 4)[None]})


def tiny() -> Policy:
    torch.manual_seed(0)
    return _policy(Tiny())


def branching() -> Policy:
    return _policy(Branching())


def module_itself() -> nn.Module:
    return Tiny()


def failing() -> Policy:
    raise FileNotFoundError("weights.safetensors")


def needs_transformers() -> Policy:
    ENVIRONMENTS["huggingface"].require()
    return tiny()
