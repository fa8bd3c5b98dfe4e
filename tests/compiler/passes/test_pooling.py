"""Pooling to a number of windows, and ops that put elements elsewhere, for the host and for a board."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.compiler.passes.test_integers import DIALECTS, Ops
from tests.samples.emitted import require_equal
from vlacompile.policy.policy import Policy, Source

SHAPE = (1, 3, 7, 9)
TABLE = torch.linspace(0, 1, 40).reshape(10, 4)


def both(result):
    """Values and places."""
    return torch.cat([result[0].flatten(), result[1].float().flatten()])


def rows(x):
    return (x[0, 0, :2].abs() * 3).long().clamp(0, 9)


POOLS = {
    "max_of_one": lambda x: both(F.adaptive_max_pool1d(x[:, :, 0].round(), 2, return_indices=True)),
    "max_of_more_than_there_are": lambda x: F.adaptive_max_pool1d(x[:, :, 0], 13),
    "max_of_two": lambda x: both(F.adaptive_max_pool2d(x.round(), (3, 4), return_indices=True)),
    "max_that_divides": lambda x: both(F.adaptive_max_pool2d(x[..., :8].round(), (7, 4), return_indices=True)),
    "max_of_a_side": lambda x: F.adaptive_max_pool2d(x[0], (None, 4)),
    "max_of_three": lambda x: both(F.adaptive_max_pool3d(x[None].round(), (2, 3, 4), return_indices=True)),
    "mean_of_one": lambda x: F.adaptive_avg_pool1d(x[:, :, 0], 2),
    "mean_of_two": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "mean_of_three": lambda x: F.adaptive_avg_pool3d(x[None], (2, 3, 4)),
}
MOVED = {
    "blocks_that_overlap": lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), SHAPE[2:], 3, padding=1, stride=2),
    "blocks_with_gaps": lambda x: F.fold(F.unfold(x, (2, 3), dilation=2), SHAPE[2:], (2, 3), dilation=2),
    "masked": lambda x: x.masked_scatter(x > 0, x.flip(0)),
    "bags": lambda x: torch.stack([F.embedding_bag(rows(x), TABLE, mode=m) for m in ("mean", "sum", "max")]),
    "empty_bags": lambda x: F.embedding_bag(rows(x)[0], TABLE, torch.tensor([0, 3, 3])),
    "counted": lambda x: torch.stack([torch.histc(x, 5, -1, 1), torch.histc(x, 5)]),
    "extremes": lambda x: torch.stack([*torch.aminmax(x), x.amax(), x.amin(), x.amax((0, 1, 2, 3))]),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("ops", [POOLS, MOVED], ids=["pools", "moved"])
def test_ops_give_pytorchs_numbers(ops, dialect):
    inputs = [{"x": torch.randn(SHAPE, generator=torch.Generator().manual_seed(s))} for s in range(3)]
    policy = Policy("ops", Ops(ops).eval(), {"x": Source("observation")}, inputs[0], outputs=("action", *ops))
    require_equal(policy, dialect, [*inputs, {"x": torch.ones(SHAPE)}], 1e-6)
