"""Our samplers against diffusers itself, and whether its recorded results are current (`--record` by hand:
python -m tests.environments.lerobot.test_diffusers)."""

from __future__ import annotations

import json

import pytest
import torch

from tests.samples.sampler_cases import CASES, GOLDEN, START, fresh, golden, network
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.quiet import quiet
from vlacompile.frontends.samplers import sampler_of

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")


def scheduler(name: str):
    kind, _, settings = CASES[name]
    with lerobot_importable():
        import diffusers

        return getattr(diffusers, kind)(beta_schedule="squaredcos_cap_v2", **settings)


def original(name: str) -> torch.Tensor:
    """diffusers' own loop; what DDPM draws is replaced by `fresh`, which is drawn in its place."""
    made, (kind, steps, _) = scheduler(name), CASES[name]
    with quiet():  # diffusers 0.35 converts arrays in a way that NumPy deprecates
        made.set_timesteps(steps)
    sample, added = START, fresh(steps)
    for k, t in enumerate(made.timesteps):
        output = network(sample, t)
        if kind == "DDPMScheduler":
            torch.manual_seed(k)
            drawn = torch.randn(sample.shape)
            torch.manual_seed(k)
            spread = made._get_variance(t) ** 0.5 if k < steps - 1 else 0.0
            sample = made.step(output, t, sample).prev_sample + spread * (added[k] - drawn)
        else:
            sample = made.step(output, t, sample).prev_sample
    return sample


@pytest.mark.parametrize("name", CASES)
def test_a_sampler_is_diffusers(name):
    steps = CASES[name][1]
    want = original(name)
    with quiet():
        sampler = sampler_of(scheduler(name), steps)
    got = sampler.denoise(network, START, fresh(steps))
    assert (got - want).abs().max() < 1e-5
    recorded = torch.tensor(golden()["cases"][name]["result"])
    assert (recorded - want).abs().max() < 1e-6, "run python -m tests.environments.lerobot.test_diffusers"


def record() -> None:
    with lerobot_importable():
        import diffusers
    cases = {}
    for name, (kind, steps, _) in CASES.items():
        made = scheduler(name)
        made.set_timesteps(steps)
        cases[name] = {"config": {k: v for k, v in made.config.items() if not k.startswith("_")
                                  and k != "trained_betas"},
                       "timesteps": made.timesteps.tolist(), "alphas_cumprod": made.alphas_cumprod.tolist(),
                       "result": original(name).tolist()}
        if kind == "DPMSolverMultistepScheduler":
            del cases[name]["alphas_cumprod"]
            cases[name] |= {"alphas_cumprod": [], "sigmas": made.sigmas.tolist()}
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    GOLDEN.write_text(json.dumps({"versions": versions, "cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
