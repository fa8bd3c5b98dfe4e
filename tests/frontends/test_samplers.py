"""Random numbers as inputs: what is drawn from them has the distribution of what they replace."""

from __future__ import annotations

import pytest
import torch

from tests.samples.sampler_cases import CASES, START, fresh, golden, network, scheduler_like
from vlacompile.frontends.samplers import ddpm, euler, sampler_of
from vlart.errors import SourceError


class UnknownScheduler:
    """A scheduler that no sampler covers."""

    config = {"prediction_type": "epsilon", "thresholding": False}


def test_an_unsupported_scheduler_is_refused():
    with pytest.raises(SourceError) as error:
        sampler_of(UnknownScheduler(), 10)
    assert "UnknownScheduler" in error.value.what and error.value.fix


@pytest.mark.parametrize("name", CASES)
def test_a_sampler_gives_what_diffusers_gave(name):
    steps = CASES[name][1]
    want = torch.tensor(golden()["cases"][name]["result"])
    sampler = sampler_of(scheduler_like(name), steps)
    assert (sampler.denoise(network, START, fresh(steps)) - want).abs().max() < 1e-5
    assert (sampler.denoise(network, -START, -fresh(steps)) - want).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "setting", "value"), [
    ("ddpm-100", "variance_type", "learned"), ("ddim-10", "thresholding", True), ("ddim-10", "prediction_type", "v"),
    ("dpm-solver-sample-5", "solver_order", 3), ("dpm-solver-sample-5", "use_karras_sigmas", True)])
def test_an_unsupported_setting_is_refused(name, setting, value):
    scheduler = scheduler_like(name)
    scheduler.config[setting] = value
    with pytest.raises(SourceError, match=setting):
        sampler_of(scheduler, 5)


def test_timesteps_that_do_not_follow_one_another_are_refused():
    scheduler = scheduler_like("ddim-10")
    scheduler.timesteps = scheduler.timesteps * 2 // 3
    with pytest.raises(SourceError, match="one stride apart"):
        sampler_of(scheduler, 10)


def test_euler_integrates_a_straight_flow_exactly():
    there = torch.ones(1, 2, 3)
    got = euler([k / 7 for k in range(8)]).denoise(lambda x, t: there, torch.zeros(1, 2, 3))
    assert torch.allclose(got, there, atol=1e-6)


def test_the_last_step_of_ddpm_adds_nothing():
    sampler = ddpm([50, 0], [0.5, 0.9, 1.0], "epsilon", None)
    drawn = torch.zeros(2, 2, 3)
    quiet = sampler.denoise(lambda x, t: x * 0.1, torch.ones(1, 2, 3), drawn)
    drawn[1] = 100.0
    assert torch.equal(sampler.denoise(lambda x, t: x * 0.1, torch.ones(1, 2, 3), drawn), quiet)
    drawn[0] = 1.0
    assert not torch.allclose(sampler.denoise(lambda x, t: x * 0.1, torch.ones(1, 2, 3), drawn), quiet)
