"""Diffusion Policy (Chi et al. 2023, arXiv 2303.04137): a 1-D U-Net denoises a whole trajectory.

LeRobot's own sampling loop uses diffusers' schedulers, whose control flow depends on tensors; `samplers.py` has the
same updates with the schedule as constants.
"""

from __future__ import annotations

import torch

from vlacompile.frontends.lerobot.read import NOISE, NOISE_OF_STEPS, Batch, Family, Predict, normal
from vlacompile.frontends.samplers import SOLVERS, Sampler, resampled, sampler_of


def _no_download(config) -> None:
    config.pretrained_backbone_weights = None
    config.compile_model = False


def _bind(policy) -> Predict:
    return _sampled(policy, sampler_of(policy.diffusion.noise_scheduler, policy.diffusion.num_inference_steps))


def _bind_solver(policy, solver: str, steps: int) -> Predict:
    return _sampled(policy, resampled(policy.diffusion.noise_scheduler, solver, steps))


def _solvers(config) -> tuple[str, ...]:
    """None for DDPM: its samples are random, so there is no reference to compare a shorter solver with."""
    return tuple(SOLVERS) if config.noise_scheduler_type == "DDIM" else ()


def _sampled(policy, sampler: Sampler) -> Predict:
    config, model = policy.config, policy.diffusion

    def condition_on(batch: Batch) -> torch.Tensor:
        seen = {"observation.state": batch["observation.state"]}
        if config.image_features:
            seen["observation.images"] = torch.stack([batch[k] for k in config.image_features], dim=-4)
        if config.env_state_feature:
            seen["observation.environment_state"] = batch["observation.environment_state"]
        return model._prepare_global_conditioning(seen)

    def predict(batch: Batch) -> torch.Tensor:
        condition = condition_on(batch)
        trajectory = sampler.denoise(
            lambda sample, timestep: model.unet(sample, timestep[None], condition),
            batch[NOISE], batch.get(NOISE_OF_STEPS))
        first = config.n_obs_steps - 1
        return trajectory[:, first: first + config.n_action_steps]

    return predict


def _noise(config) -> dict[str, torch.Tensor]:
    """DDIM draws noise once; DDPM also after every step (the noise after the last one is not used)."""
    sample = (config.horizon, config.action_feature.shape[0])
    steps = config.num_inference_steps or config.num_train_timesteps
    again = {NOISE_OF_STEPS: normal(steps, *sample)} if config.noise_scheduler_type == "DDPM" else {}
    return {NOISE: normal(1, *sample)} | again


FAMILY = Family("lerobot.policies.diffusion.modeling_diffusion", "DiffusionPolicy", _bind, ready=_no_download,
                noise=_noise, history=lambda config: config.n_obs_steps, solvers=_solvers, bind_solver=_bind_solver)
