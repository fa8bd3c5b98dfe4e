"""VQ-BeT (Lee et al. 2024, arXiv 2403.03181): a transformer predicts two codes of a residual VQ, and offsets to them.

The codes are sampled. Here the random numbers are an input, `noise.choices`, uniform in [0, 1), and a code is sampled
by inverting its cumulative distribution: the same distribution as torch.multinomial, from given random numbers.
"""

from __future__ import annotations

import torch

from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.read import Batch, Family, Predict, uniform
from vlacompile.policy.drawn_from import drawn_from

CHOICES = "noise.choices"
CODE_LAYERS = 2  # layers of the residual VQ; fixed in the original


def _bind(policy) -> Predict:
    config = policy.config

    def predict(batch: Batch) -> torch.Tensor:
        seen = {"observation.state": batch["observation.state"],
                "observation.images": torch.stack([batch[k] for k in config.image_features], dim=-4)}
        with drawn_from(uniform=batch[CHOICES]):
            return policy.vqbet(seen, rollout=True)[:, : config.action_chunk_size]

    return predict


def _noise(config) -> dict[str, torch.Tensor]:
    tokens = config.n_obs_steps + config.n_action_pred_token - 1
    return {CHOICES: uniform(1, CODE_LAYERS * tokens)}


def _no_download(config) -> None:
    config.pretrained_backbone_weights = None


def _settings(checkpoint: Checkpoint) -> dict:
    """Without a field that LeRobot up to 0.3 wrote and never read."""
    return {name: value for name, value in checkpoint.config.items() if name != "mlp_hidden_dim"}


FAMILY = Family("lerobot.policies.vqbet.modeling_vqbet", "VQBeTPolicy", _bind, ready=_no_download, noise=_noise,
                settings=_settings, history=lambda config: config.n_obs_steps,
                execute=lambda config: config.action_chunk_size)
