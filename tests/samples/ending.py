"""Policies with a loop whose end the data decides."""

from __future__ import annotations

import torch

import vlacompile as vc

SEEDS = 24  # states drawn from them end after every number of iterations


class Ending(torch.nn.Module):
    """A map that is applied until the sum of what it gives is small."""

    def __init__(self, most: int, must_end: bool):
        super().__init__()
        torch.manual_seed(3)
        self.most, self.must_end = most, must_end
        self.inner = torch.nn.Linear(4, 4)
        self.register_buffer("gains", torch.linspace(1.2, 0.1, 10))

    def once(self, x, state, k):
        return torch.tanh(self.inner(x)) * self.gains[k] + 0.2 * state

    def is_over(self, x):
        return x.abs().sum() < 1.2

    def observe(self, state):
        x, count = vc.iterate(lambda k, s: (self.once(s[0], state, k), s[1] + 1),
                              (state.clone(), torch.zeros(1, dtype=torch.int64)), self.most,
                              until=lambda s: self.is_over(s[0]), must_end=self.must_end)
        return {"action": x[None], "count": count}


def ending(most: int, must_end: bool = False) -> vc.Policy:
    """most: the largest number of iterations, at most 10. Outputs: action f32[1,1,4], count i64[1]."""
    module = Ending(most, must_end).eval().requires_grad_(False)
    return vc.Policy("ending", module.observe, {"state": vc.Source("observation")},
                     {"state": torch.randn(1, 4, generator=torch.Generator().manual_seed(0))},
                     outputs=("action", "count"))
