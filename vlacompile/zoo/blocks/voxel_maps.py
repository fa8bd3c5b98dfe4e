"""Maps over the voxels of a cube, and the greedy way down one of them."""

from __future__ import annotations

import math

import torch

from vlacompile.policy.iterate import iterate

BLOCK = 10  # rows of a distance transform that are compared at once
TRUNCATE = 4.0  # standard deviations at which a Gaussian ends


def distances(marked: torch.Tensor) -> torch.Tensor:
    """bool [n,n,n] -> f32: the Euclidean distance to the nearest marked voxel, in voxels: exact, axis by axis
    (Felzenszwalb and Huttenlocher 2012). Without a marked voxel it is about 1e10 everywhere."""
    side = marked.shape[0]
    places = torch.arange(side, dtype=torch.float32)
    apart = (places[:, None] - places[None]).square()  # [to,from]
    squares = torch.where(marked, 0.0, 1e20)
    for axis in range(3):
        rows = squares.movedim(axis, 2)
        nearest = [(rows[:, :, None, at: at + BLOCK] + apart[:, at: at + BLOCK]).amin(-1)
                   for at in range(0, side, BLOCK)]
        squares = torch.stack(nearest).amin(0).movedim(2, axis)
    return squares.sqrt()


def smoothed(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """[n,n,n] convolved with a Gaussian, mirrored at the borders (half-sample symmetric)."""
    weights = _gaussian(values.shape[0], sigma)
    for axis in range(3):
        values = (values.movedim(axis, 2) @ weights.T).movedim(2, axis)
    return values


def _gaussian(side: int, sigma: float) -> torch.Tensor:
    """[to,from]"""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    at = torch.arange(side)[:, None] + torch.arange(-radius, radius + 1)
    around = at.remainder(2 * side)
    source = torch.where(around < side, around, 2 * side - 1 - around)
    weights = torch.zeros(side, side, dtype=torch.float64)
    return weights.scatter_add(1, source, (kernel / kernel.sum()).expand(side, -1)).to(torch.float32)


def normalised(values: torch.Tensor) -> torch.Tensor:
    """To [0,1]; a map of one value stays."""
    least, span = values.amin(), values.amax() - values.amin()
    return torch.where(span == 0, values, (values - least) / torch.where(span == 0, 1.0, span))


def descent(costs: torch.Tensor, start: torch.Tensor, steps: int, reach: int, threshold: float) \
        -> tuple[torch.Tensor, torch.Tensor]:
    """costs [n,n,n], start i64 [3] -> (voxels i64 [steps+1,3], of which the last stays until the end, and the number of
    steps i64 [1]).

    Each step goes to the cheapest voxel within `reach` along every axis; of equal ones to the first in lexicographic
    order. A voxel that was left costs 1 more. It ends where no voxel around costs less than the own plus `threshold`.
    """
    side, flat = costs.shape[0], costs.flatten()
    strides = torch.tensor([side * side, side, 1])
    around = torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 3)
    around = around[(around != 0).any(1)]
    rows = torch.arange(steps + 1)

    def seen(place: torch.Tensor, left: torch.Tensor) -> dict[str, torch.Tensor]:
        """place [3], left: numbers of voxels [steps+1], -1 where there is none"""
        near = ((place + around).clamp(0, side - 1) * strides).sum(1)
        own = (place * strides).sum(0, keepdim=True)
        all_numbers = torch.cat([near, own])
        found = flat[all_numbers] + (all_numbers[:, None] == left).sum(1)
        return {"near": near, "cost": found[:-1], "own": found[-1:], "number": own}

    def step(k: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        cheapest = state["cost"] == state["cost"].amin()
        chosen = torch.where(cheapest, state["near"], math.prod(costs.shape)).amin(0, keepdim=True)
        place = (chosen // strides).remainder(side)
        left = torch.where(rows == rows[k], state["number"], state["left"])
        way = torch.where(rows > rows[k], chosen, state["way"])
        return {**seen(place, left), "left": left, "way": way, "steps": state["steps"] + 1}

    none = torch.full((steps + 1,), -1)
    first = seen(start, none)
    state = {**first, "left": none, "way": first["number"].expand(steps + 1),
             "steps": torch.zeros(1, dtype=torch.int64)}
    end = iterate(step, state, steps, until=lambda s: ~(s["cost"] < s["own"] + threshold).any())
    return (end["way"][:, None] // strides).remainder(side), end["steps"]
