"""Multi-task diffusion transformer (LeRobot 0.6): CLIP reads frames and instruction, a transformer with adaptive norms
denoises a trajectory, by diffusion or by flow matching.

The sizes of CLIP are not in a checkpoint; they are read from the config.json of the models that it names, which hold
the weights before training. LeRobot's sampling loops draw their noise; `samplers.py` has the same updates.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from unittest import mock

import torch
from torch import nn

from vlacompile.frontends.lerobot.read import MASK, NOISE, NOISE_OF_STEPS, STATE, TOKENS, Batch, Family, Predict, normal
from vlacompile.frontends.samplers import SOLVERS, euler, resampled, runge_kutta, sampler_of
from vlart.errors import SourceError

Denoise = Callable[..., torch.Tensor]  # (predict, initial noise, noise of steps or None) -> trajectory


def _make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy with random weights, of the sizes of the models that it begins from."""
    import transformers
    from lerobot.policies.multi_task_dit import modeling_multi_task_dit as module

    def sized(model: type, part: str) -> SimpleNamespace:
        return SimpleNamespace(from_pretrained=lambda name: model(getattr(_clip(name), part)))

    with mock.patch.multiple(module, CLIPVisionModel=sized(transformers.CLIPVisionModel, "vision_config"),
                             CLIPTextModel=sized(transformers.CLIPTextModel, "text_config")):
        return policy_class(config)


def _clip(name: str):
    from transformers import CLIPConfig

    try:
        return CLIPConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SourceError(f'config.json of "{name}" is not on this machine',
                          where="config.json: vision_encoder_name, text_encoder_name",
                          why="a checkpoint of this policy does not contain the sizes of its encoders",
                          fix="download it once (hf download NAME config.json), or name a local directory") from error


def _bind(policy) -> Predict:
    config = policy.config
    if config.objective == "flow_matching":
        times = torch.linspace(0, 1, config.num_integration_steps + 1).tolist()
        if config.integration_method == "rk4":
            return _sampled(policy, lambda predict, noise, added: runge_kutta(predict, noise, times))
        return _sampled(policy, euler(times).denoise)
    return _sampled(policy, sampler_of(policy.objective.noise_scheduler, policy.objective.num_inference_steps).denoise)


def _bind_solver(policy, solver: str, steps: int) -> Predict:
    return _sampled(policy, resampled(policy.objective.noise_scheduler, solver, steps).denoise)


def _solvers(config) -> tuple[str, ...]:
    return tuple(SOLVERS) if config.objective == "diffusion" and config.noise_scheduler_type == "DDIM" else ()


def _sampled(policy, denoise: Denoise) -> Predict:
    config = policy.config

    def predict(batch: Batch) -> torch.Tensor:
        seen = {name: batch[name] for name in (STATE, TOKENS, MASK)}
        if config.image_features:
            seen["observation.images"] = torch.stack([batch[k] for k in config.image_features], dim=-4)
        condition = policy.observation_encoder.encode(seen)
        trajectory = denoise(lambda x, t: policy.noise_predictor(x, t[None], conditioning_vec=condition),
                             batch[NOISE], batch.get(NOISE_OF_STEPS))
        first = config.n_obs_steps - 1
        return trajectory[:, first: first + config.n_action_steps]

    return predict


def _noise(config) -> Batch:
    sample = (config.horizon, config.action_feature.shape[0])
    again = config.objective == "diffusion" and config.noise_scheduler_type == "DDPM"
    steps = config.num_inference_steps or config.num_train_timesteps
    return {NOISE: normal(1, *sample)} | ({NOISE_OF_STEPS: normal(steps, *sample)} if again else {})


FAMILY = Family("lerobot.policies.multi_task_dit.modeling_multi_task_dit", "MultiTaskDiTPolicy", _bind, make=_make,
                noise=_noise, history=lambda config: config.n_obs_steps, solvers=_solvers, bind_solver=_bind_solver,
                only="lerobot061")
