"""Sampling loops of denoising policies with their schedules as Python numbers, so that they can be traced.

Equations: DDIM, Song et al. 2021 (arXiv 2010.02502), eq. 12 with eta 0; DDPM, Ho et al. 2020 (arXiv 2006.11239),
eq. 6 and 7 with the small fixed variance; as diffusers 0.35 computes them. A number that differs from step to step
becomes a row of a table in the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlacompile.errors import SourceError

Predict = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """alpha_bar: cumulated signal share at this timestep and at the one that it leads to."""

    timestep: int
    alpha_bar: float
    alpha_bar_next: float


@dataclass(frozen=True)
class Sampler:
    """kind: "ddim" or "ddpm". predicts: "epsilon" or "sample". clip: bound of the clean sample, or None."""

    kind: str
    steps: tuple[Step, ...]
    predicts: str
    clip: float | None

    def denoise(self, predict: Predict, sample: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """The sample [1,H,D] after all steps.

        predict: (sample [1,H,D], timestep) -> the network's output. sample [1,H,D]: noise to begin with. added
        [K,H,D]: what DDPM adds after each step; its last row counts nothing.
        """
        for k, step in enumerate(self.steps):
            output = predict(sample, step.timestep)
            a, b = step.alpha_bar**0.5, (1.0 - step.alpha_bar) ** 0.5
            if self.predicts == "epsilon":
                clean, residual = (sample - b * output) / a, output
            else:
                clean, residual = output, (sample - a * output) / b
            if self.clip is not None:
                clean = clean.clamp(-self.clip, self.clip)
            if self.kind == "ddim":
                sample = step.alpha_bar_next**0.5 * clean + (1.0 - step.alpha_bar_next) ** 0.5 * residual
            else:
                assert added is not None
                sample = _ddpm(step, clean, sample, added[k][None], final=k == len(self.steps) - 1)
        return sample


def _ddpm(step: Step, clean: torch.Tensor, sample: torch.Tensor, fresh: torch.Tensor, final: bool) -> torch.Tensor:
    kept = step.alpha_bar / step.alpha_bar_next
    scale = 1.0 - step.alpha_bar
    mean = (step.alpha_bar_next**0.5 * (1.0 - kept) / scale) * clean + (
        kept**0.5 * (1.0 - step.alpha_bar_next) / scale) * sample
    variance = max((1.0 - step.alpha_bar_next) / scale * (1.0 - kept), 1e-20)
    return mean + (0.0 if final else variance**0.5) * fresh


def sampler_of(scheduler, iterations: int) -> Sampler:
    """What diffusers' DDIMScheduler or DDPMScheduler object does in so many steps. Raises SourceError for settings
    that are not covered."""
    kind, config = type(scheduler).__name__, scheduler.config
    _check(kind, config)
    scheduler.set_timesteps(iterations)
    bars, timesteps = scheduler.alphas_cumprod.double().tolist(), [int(t) for t in scheduler.timesteps]
    stride = config.num_train_timesteps // len(timesteps)
    final = float(scheduler.final_alpha_cumprod) if kind == "DDIMScheduler" else 1.0
    steps = tuple(Step(t, bars[t], bars[t - stride] if t >= stride else final) for t in timesteps)
    return Sampler(kind.removesuffix("Scheduler").lower(), steps, config.prediction_type,
                   float(config.clip_sample_range) if config.clip_sample else None)


def _check(kind: str, config) -> None:
    wanted = {"prediction_type": ("epsilon", "sample"), "thresholding": (False,)}
    if kind == "DDPMScheduler":
        wanted["variance_type"] = ("fixed_small",)
    elif kind != "DDIMScheduler":
        raise SourceError(f"the scheduler {kind} is not covered", where="the checkpoint's noise scheduler",
                          why="DDIMScheduler and DDPMScheduler are", fix="set noise_scheduler_type to DDIM in config.json")
    for name, values in wanted.items():
        if config.get(name) not in values:
            raise SourceError(f"{name} = {config.get(name)!r} is not covered", where=f"the checkpoint's {kind}",
                              why=f"covered: {', '.join(map(repr, values))}", fix="sample with DDIM and epsilon prediction")
