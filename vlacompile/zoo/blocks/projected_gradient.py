"""Minimisation of a cost in the box [-1,1] from many points at once: gradients with momentum (Kingma and Ba 2014, arXiv
1412.6980), projected on the box. The parts of a loop; who writes it may minimise several costs in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Cost = Callable[[torch.Tensor], torch.Tensor]  # x [n,d] -> [n], each row by itself
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Descent:
    """rates: of the first and the last iteration. decays: of the means of gradients and of their squares. patience:
    iterations in which the least cost of all points may fall by less than `gain`, before it has ended."""

    iterations: int = 30
    rates: tuple[float, float] = (0.2, 0.002)
    decays: tuple[float, float] = (0.8, 0.95)
    patience: int = 8
    gain: float = 1e-3

    def begin(self, seeds: torch.Tensor) -> State:
        """seeds [n,d]"""
        nothing = torch.zeros_like(seeds)
        return {"x": seeds, "mean": nothing, "square": nothing, "best": seeds,
                "cost": torch.full_like(seeds[:, 0], torch.finfo(seeds.dtype).max),
                "still": torch.zeros(1, dtype=torch.int64)}

    def step(self, k: int, state: State, cost: Cost) -> State:
        """The next points, and of the former ones the best of each row."""
        moves, factors = self._schedule()
        gradient, (_, value) = torch.func.grad_and_value(_summed(cost), has_aux=True)(state["x"])
        gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
        a, b = self.decays
        mean = a * state["mean"] + (1 - a) * gradient
        square = b * state["square"] + (1 - b) * gradient.square()
        x = (state["x"] - moves[k] * mean / (torch.sqrt(square * factors[k]) + 1e-2)).clamp(-1, 1)
        value = torch.where(torch.isnan(value), torch.inf, value)
        least = torch.minimum(value, state["cost"])
        moved = least.amin() < state["cost"].amin() - self.gain
        return {"x": x, "mean": mean, "square": square, "cost": least,
                "best": torch.where((value < state["cost"])[:, None], state["x"], state["best"]),
                "still": torch.where(moved, 0, state["still"] + 1)}

    def over(self, state: State) -> torch.Tensor:
        return state["still"] >= self.patience

    def _schedule(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each iteration: the rate over what the mean lacks at the beginning, and the same factor of squares."""
        (first, last), (a, b) = self.rates, self.decays
        steps = torch.arange(self.iterations)
        rates = first * (last / first) ** (steps / max(self.iterations - 1, 1))
        return rates / (1 - a ** (steps + 1)), 1 / (1 - b ** (steps + 1))


def best(state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """The best x [1,d] of all rows and its cost [1]."""
    least = state["cost"].argmin(0, keepdim=True)
    return state["best"][least], state["cost"][least]


def _summed(cost: Cost) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = cost(x)
        return value.sum(), value

    return both
