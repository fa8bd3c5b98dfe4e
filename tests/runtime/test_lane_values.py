"""What a lane hands over is a number: nonsense is not, and those that read it go on without."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.runtime.test_lanes import act, recipe
from vlart.errors import RuntimeFailure

WIDTH = 64


class Overflowing(torch.nn.Module):
    """A slow view whose latent is infinite for large numbers, beside a mask of minus infinities, which is none."""

    def __init__(self):
        super().__init__()
        self.seen = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, view, state):
        latent = self.seen(torch.exp(view))
        mask = torch.where(self.seen(view) < 0, -torch.inf, 0.0)
        return {"action": (latent * torch.softmax(mask, -1) + state)[None]}


def test_nonsense_of_a_lane_is_not_handed_over_and_the_last_set_is_used_until_it_is_too_old(tmp_path):
    lane = '[[lane]]\nname = "slow"\nsources = ["view"]\nmax_age_ms = 400\n'
    good, state = torch.randn(1, WIDTH), torch.ones(1, WIDTH)
    policy = vc.Policy("overflowing", Overflowing().eval(), {n: vc.Source("observation") for n in ("view", "state")},
                       {"view": good, "state": state})
    made = vc.build(policy, recipe=recipe(tmp_path, lane), out=tmp_path / "o.vlab")
    good, state = good.numpy(), state.numpy()
    with vc.Lanes(made.path, threads=1) as lanes:
        lanes["slow"].write("view", good)
        lanes["slow"].step()
        want = act(lanes.control, {"state": state}, ("state",)).copy()
        assert np.isfinite(want).all()
        lanes["slow"].write("view", good + 200)
        with pytest.raises(RuntimeFailure) as error:
            lanes["slow"].step()
        assert error.value.status == "NOT_FINITE" and '"slow"' in error.value.where
        np.testing.assert_array_equal(act(lanes.control, {"state": state}, ("state",)), want)
        assert lanes.followed("slow").sequence == 1
        time.sleep(0.5)
        with pytest.raises(RuntimeFailure) as error:
            act(lanes.control, {"state": state}, ("state",))
        assert error.value.status == "LANE_STALE" and lanes.control.queue().stale
