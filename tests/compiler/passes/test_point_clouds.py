"""What is done to point clouds: chosen, grouped, cropped and pooled points are PyTorch's, for the host and for a
board."""

from __future__ import annotations

import pytest
import torch

from tests.compiler.passes.test_integers import DIALECTS, Ops
from tests.samples.emitted import require_equal
from vlacompile.policy.policy import Policy, Source

POINTS, KEPT, NEAR = 24, 6, 4


def farthest(x):
    """The points that are farthest from those chosen before."""
    chosen, distance = [torch.zeros(1, dtype=torch.long)], torch.full((1, POINTS), 1e10)
    for _ in range(KEPT - 1):
        last = x.gather(1, chosen[-1][:, None, None].expand(1, 1, 3))
        distance = torch.minimum(distance, ((x - last) ** 2).sum(-1))
        chosen.append(distance.argmax(-1))
    return x.gather(1, torch.stack(chosen, 1)[..., None].expand(1, KEPT, 3))


def nearest(x):
    """Around every kept point, its neighbours relative to it."""
    kept = x[:, :KEPT]
    near = (kept[:, :, None] - x[:, None]).norm(dim=-1).topk(NEAR, largest=False).indices
    grouped = x[:, None].expand(1, KEPT, POINTS, 3).gather(2, near[..., None].expand(1, KEPT, NEAR, 3))
    return grouped - kept[:, :, None]


def by_distance(x):
    near = torch.cdist(x[:, :KEPT], x).topk(NEAR, largest=False).indices
    return x[0][near[0]].amax(1)


def in_a_ball(x):
    """The first neighbours within a radius; the first one again where there are fewer."""
    distance = (x[:, :KEPT, None] - x[:, None]).pow(2).sum(-1)
    near = torch.arange(POINTS).expand(1, KEPT, POINTS).clone()
    near[distance > 1.0] = POINTS
    near = near.sort(-1).values[..., :NEAR]
    near = torch.where(near == POINTS, near[..., :1].expand_as(near), near)
    return x[0][near[0]].sum(1)


def cropped(x):
    inside = ((x > -1) & (x < 1)).all(-1)
    return torch.where(inside[..., None], x, torch.tensor(float("-inf"))).amax(1).nan_to_num(neginf=0.0)


OPS = {f.__name__: f for f in (farthest, nearest, by_distance, in_a_ball, cropped)}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_points_are_pytorchs(dialect):
    ops = {name: lambda x, f=f: f(x) for name, f in OPS.items()}
    frames = [{"x": torch.randn(1, POINTS, 3, generator=torch.Generator().manual_seed(s))} for s in range(3)]
    outside = {"x": frames[0]["x"].sign() * 2 + frames[0]["x"]}  # nothing is left of the crop
    policy = Policy("points", Ops(ops).eval(), {"x": Source("observation")}, frames[0], outputs=("action", *ops))
    require_equal(policy, dialect, [*frames, outside], 1e-5)
    assert not torch.equal(farthest(frames[0]["x"]), frames[0]["x"][:, :KEPT])
