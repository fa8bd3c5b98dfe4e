"""Cases that say what diffusers' schedulers compute; `tests/golden/diffusers.json` holds its results."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "diffusers.json"
CASES = {
    "ddim-10": ("DDIMScheduler", 10, {"num_train_timesteps": 100}),
    "ddim-sample-5": ("DDIMScheduler", 5, {"num_train_timesteps": 100, "prediction_type": "sample"}),
    "ddpm-100": ("DDPMScheduler", 100, {"num_train_timesteps": 100}),
    "ddpm-sample-20": ("DDPMScheduler", 20, {"num_train_timesteps": 100, "prediction_type": "sample"}),
    "dpm-solver-sample-5": ("DPMSolverMultistepScheduler", 5,
                            {"num_train_timesteps": 1000, "prediction_type": "sample"}),
    "dpm-solver-sample-20": ("DPMSolverMultistepScheduler", 20,
                             {"num_train_timesteps": 1000, "prediction_type": "sample"}),
}
MIX = torch.sin(torch.arange(9.0)).reshape(3, 3) * 0.4
START = torch.sin(torch.arange(12.0) * 1.7).reshape(1, 4, 3) * 1.5


def network(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    return torch.tanh(sample @ MIX + torch.sin(timestep.float() * 0.01))


def fresh(steps: int) -> torch.Tensor:
    """[K,4,3]: what DDPM adds."""
    return torch.sin(torch.arange(steps * 12.0) * 2.3).reshape(steps, 4, 3) * 1.4


def golden() -> dict:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def scheduler_like(name: str) -> SimpleNamespace:
    """Has what `sampler_of` reads of a diffusers scheduler, from the recorded values."""
    recorded = golden()["cases"][name]
    kind = type(CASES[name][0], (SimpleNamespace,), {})
    config = type("Config", (dict,), {"__getattr__": dict.__getitem__})(recorded["config"])
    return kind(config=config, set_timesteps=lambda steps: None, timesteps=torch.tensor(recorded["timesteps"]),
                alphas_cumprod=torch.tensor(recorded["alphas_cumprod"]),
                sigmas=torch.tensor(recorded.get("sigmas", [])), final_alpha_cumprod=torch.tensor(1.0))
