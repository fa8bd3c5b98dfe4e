"""scipy's transforms and a greedy walk written in NumPy are the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from vlacompile.zoo.blocks.voxel_maps import descent, distances, normalised, smoothed


@pytest.mark.parametrize("side, marked", [(7, 1), (12, 3), (23, 40)])
def test_distances_are_those_of_scipy(side, marked):
    target = np.zeros(side**3)
    target[np.random.default_rng(side).choice(side**3, marked, replace=False)] = 1
    target = target.reshape(side, side, side)
    got = distances(torch.tensor(target) == 1)
    np.testing.assert_allclose(got, ndimage.distance_transform_edt(1 - target), rtol=1e-6)


@pytest.mark.parametrize("side, sigma", [(20, 2.0), (9, 3.0), (5, 4.0)])
def test_a_gaussian_is_that_of_scipy_where_it_is_wider_than_the_map_too(side, sigma):
    values = np.random.default_rng(0).random((side, side, side))
    got = smoothed(torch.tensor(values, dtype=torch.float32), sigma)
    np.testing.assert_allclose(got, ndimage.gaussian_filter(values, sigma), atol=1e-6)


def test_a_map_of_one_value_stays_and_others_fill_the_unit():
    assert torch.equal(normalised(torch.full((2, 2, 2), 3.0)), torch.full((2, 2, 2), 3.0))
    filled = normalised(torch.rand(3, 3, 3))
    assert filled.min() == 0 and filled.max() == 1


def walked(costs: np.ndarray, start: tuple[int, ...], steps: int, reach: int, threshold: float) -> np.ndarray:
    """As the authors' planner walks: sorted distinct neighbours, the first of the cheapest."""
    costs, here, path = costs.copy(), np.array(start), [np.array(start)]
    offsets = np.array(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3)).T.reshape(-1, 3)
    offsets = offsets[np.any(offsets != 0, axis=1)]

    def around(place):
        return np.unique(np.clip(place + offsets, 0, len(costs) - 1), axis=0)

    for _ in range(steps):
        near = around(here)
        following = near[np.argmin(costs[tuple(near.T)])]
        costs[tuple(here)] += 1
        path.append(following)
        here = following
        if not np.any(costs[tuple(around(here).T)] < costs[tuple(here)] + threshold):
            break
    return np.array(path)


@pytest.mark.parametrize("seed", range(6))
def test_the_way_down_is_the_greedy_walk_with_its_order_of_ties(seed):
    draw = np.random.default_rng(seed)
    side, steps = 9, 40
    costs = draw.integers(0, 6, (side, side, side)) / 8 if seed % 2 else \
        distances(torch.tensor(draw.random((side, side, side)) < 0.003)).numpy().round(2)
    start = tuple(draw.integers(0, side, 3)) if seed else (0, 0, side - 1)
    want = walked(costs.astype(np.float32), start, steps, 2, 1e-3)
    way, count = descent(torch.tensor(costs, dtype=torch.float32), torch.tensor(start), steps, 2, 1e-3)
    assert int(count) == len(want) - 1
    np.testing.assert_array_equal(way[:len(want)], want)
    assert (way[len(want):] == way[len(want) - 1]).all()


def test_another_order_of_ties_takes_another_way():
    """On a plain every neighbour is as cheap, and the first is chosen."""
    way, _ = descent(torch.zeros(9, 9, 9), torch.tensor([4, 4, 4]), 3, 2, 1e-3)
    assert way[1].tolist() == [2, 2, 2] and way[2].tolist() == [0, 0, 0]
