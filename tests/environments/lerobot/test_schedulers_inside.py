"""Schedulers of diffusers used inside of a policy as their documentation shows it: `set_timesteps` and `step` in the
inference function, unchanged. PyTorch's own run says what is right."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

import vlacompile as vc
from tests.samples.staging import verified
from vlacompile.hardware.target import load_target
from vlacompile.recipe.recipe import load_recipe

# diffusers 0.35 with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, CHUNK = 5, (1, 4, 6)
TRAINED = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(**TRAINED),
    "ddim-sample": lambda: diffusers.DDIMScheduler(**TRAINED, prediction_type="sample", set_alpha_to_one=False),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**TRAINED),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**TRAINED),
    "euler": lambda: diffusers.EulerDiscreteScheduler(num_train_timesteps=100),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=100),
    "ddpm": lambda: diffusers.DDPMScheduler(**TRAINED)}
ONE_LOOP = ("ddim", "ddim-sample", "euler", "flow", "ddpm")


class Sampler(nn.Module):
    def __init__(self, scheduler):
        super().__init__()
        torch.manual_seed(0)
        self.scheduler = scheduler
        self.net = nn.Sequential(nn.Linear(6 + 8 + 1, 64), nn.SiLU(), nn.Linear(64, 6))

    def forward(self, state, noise):
        self.scheduler.set_timesteps(STEPS)
        for t in self.scheduler.timesteps:
            scales = hasattr(self.scheduler, "scale_model_input")
            scaled = self.scheduler.scale_model_input(noise, t) if scales else noise
            time = (torch.as_tensor(t).float() / 100).expand(1, CHUNK[1], 1)
            seen = torch.cat([scaled, state[:, None].expand(1, CHUNK[1], 8), time], -1)
            noise = self.scheduler.step(self.net(seen), t, noise).prev_sample
        return {"action": noise}


class WithFreshNoise(Sampler):
    """DDPM adds noise after every step but the last: the robot gives it."""

    def forward(self, state, noise, fresh):
        with vc.drawn_from(normal=fresh):
            return super().forward(state, noise)


def policy(name: str) -> vc.Policy:
    fresh = name == "ddpm"
    inputs = {"state": torch.randn(1, 8), "noise": torch.randn(CHUNK)}
    if fresh:
        inputs["fresh"] = torch.randn(STEPS - 1, *CHUNK)
    sources = {n: vc.Source("observation" if n == "state" else "step") for n in inputs}
    return vc.Policy(name, (WithFreshNoise if fresh else Sampler)(SCHEDULERS[name]()).eval(), sources, inputs)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_inside_is_compiled(name, tmp_path):
    of = policy(name)
    bundle = vc.build(of, out=tmp_path / "a.vlab")
    with vc.Session(bundle.path) as session:
        for seed in range(3):
            torch.manual_seed(seed)
            seen = {n: torch.randn(t.shape) for n, t in of.example_inputs.items()}
            for n, tensor in seen.items():
                session.write(n, tensor.numpy())
            session.step()
            with torch.no_grad():
                want = policy(name).infer(**seen)["action"].numpy()
            got = session.read("action")
            assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
            assert np.abs(got - 1.01 * want).max() > 1e-3, "the comparison can fail"


@pytest.mark.parametrize("name", ONE_LOOP)
def test_its_iterations_are_found(name):
    notes = verified(policy(name), load_target("host"), load_recipe(None)).staging.notes
    count = STEPS - 1 if name == "ddpm" else STEPS  # the last step of DDPM adds nothing
    assert any(f"{count} iterations of" in note for note in notes), notes


def test_noise_that_a_scheduler_draws_is_refused_with_its_line_and_the_way_out():
    of = policy("ddpm")
    drawing = vc.Policy("ddpm", Sampler(SCHEDULERS["ddpm"]()).eval(), {n: of.sources[n] for n in ("state", "noise")},
                        {n: of.example_inputs[n] for n in ("state", "noise")})
    with pytest.raises(vc.VlaError, match="random numbers are drawn inside") as error:
        vc.build(drawing, out="unused.vlab")
    assert ".py:" in error.value.where and "drawn_from(normal=noise)" in error.value.fix
