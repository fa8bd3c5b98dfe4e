"""Wall-X of LeRobot 0.6.1, whose actions have experts of their own, against LeRobot's own loop in fp32 and as it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments.lerobot.parity import observation
from tests.environments.lerobot061 import wall_x
from tests.environments.lerobot061.registered import TASK, both, lerobot_loop, noise_of
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import read_policy
from vlacompile.frontends.lerobot.wall_x import InFp32, odeint
from vlart.errors import SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
ROUNDED = 0.05  # what LeRobot's own bf16 differs by, as a share of the spread


def test_actions_are_those_of_lerobots_loop(tmp_path, record_property):
    folder = tmp_path / "pretrained_model"
    policy = wall_x.write(folder)
    bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab",
                                             options=CheckpointOptions(instruction=TASK)))
    with InFp32():
        got, want = both(bundle, folder, policy, 4)
    share = share_of_spread(got, want)
    assert share < SHARE
    assert np.abs(got[0] - want[1]).max() > 100 * SHARE * want.std(), "another observation gives the same actions"
    assert [s.sampling.iterations for s in bundle.plan.stages if s.sampling is not None] == [9]  # behind the first
    compared(record_property, bundle, share, files="LeRobot 0.6.1", policy="wall_x", oracle="LeRobot 0.6.1",
             seconds=seconds)
    rounded = copy.deepcopy(policy)
    rounded.model.to_bfloat16_for_selected_params()
    with lerobot_importable():
        loop = lerobot_loop(folder, rounded)
        as_it_is = []
        for seed in range(3):
            seen, noise = observation(policy, seed), noise_of(bundle, seed)
            loop.reset()
            as_it_is.append(np.stack([loop.act(seen, noise if k == 0 else None) for k in range(4)]))
    assert SHARE < share_of_spread(np.stack(as_it_is), got) < ROUNDED


def test_eulers_method_is_torchdiffeqs_fixed_grid():
    start, times = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 0.5, 0.75, 1.0])
    states = odeint(lambda t, y: (1 + t) * y, start, times, method="euler")
    factors = torch.tensor([1.0, 1.5, 1.5 * 1.375, 1.5 * 1.375 * 1.4375])
    assert torch.allclose(torch.stack(states), factors[:, None] * start)


def test_actions_as_tokens_are_refused(tmp_path):
    wall_x.write(tmp_path / "pretrained_model")
    config = tmp_path / "pretrained_model" / "config.json"
    config.write_text(config.read_text().replace('"diffusion"', '"fast"'))
    with pytest.raises(SourceError, match='prediction_mode = "fast" is not compiled'):
        read_policy(tmp_path / "pretrained_model")
