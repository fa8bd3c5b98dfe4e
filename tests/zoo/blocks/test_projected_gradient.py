from __future__ import annotations

import torch

from vlacompile.zoo.blocks.projected_gradient import Descent, best


def test_it_finds_the_least_of_a_cost_in_the_box_and_leaves_points_without_a_cost():
    descent = Descent(iterations=60, rates=(0.2, 0.001))

    def cost(x: torch.Tensor) -> torch.Tensor:
        hills = (x - torch.tensor([0.3, 2.0])).square().sum(-1) + 0.3 * torch.cos(9 * x[:, 0])
        return torch.where(x[:, 0] < -0.9, torch.nan, hills)

    state = descent.begin(torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    for k in range(descent.iterations):
        state = descent.step(k, state, cost)
    x, least = best(state)
    grid = torch.cartesian_prod(torch.linspace(-0.9, 1, 400), torch.linspace(-1, 1, 21))
    assert abs(float(least) - float(cost(grid).nan_to_num(9.0).min())) < 1e-3
    assert x[0, 1] > 0.999, "the least lies behind the box's side"


def test_it_is_over_when_the_best_stays():
    descent = Descent(patience=3)
    state = descent.begin(torch.zeros(2, 1))
    turns = 0
    while not descent.over(state):
        state, turns = descent.step(turns, state, lambda x: x.square().sum(-1)), turns + 1
    assert turns == 4
