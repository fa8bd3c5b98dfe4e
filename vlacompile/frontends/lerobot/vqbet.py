"""VQ-BeT (Lee et al. 2024, arXiv 2403.03181): a transformer predicts two codes of a residual VQ, and offsets to them.

The codes are sampled. Here the random numbers are an input, `noise.choices`, uniform in [0, 1), and a code is sampled
by
inverting its cumulative distribution: the same distribution as torch.multinomial, from given random numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from vlacompile.frontends.lerobot.read import Batch, Family, Predict, uniform

CHOICES = "noise.choices"
CODE_LAYERS = 2  # layers of the residual VQ; fixed in the original


@contextlib.contextmanager
def drawn_from(uniforms: torch.Tensor) -> Iterator[None]:
    """Within this context torch.multinomial(p [N,C], 1) consumes the next N of `uniforms` [1,M]; all M must be used."""
    original, used = torch.multinomial, 0

    def draw(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        nonlocal used
        assert num_samples == 1, num_samples
        rows, codes = probabilities.shape
        u = uniforms[0, used: used + rows, None]
        used += rows
        return (torch.cumsum(probabilities, -1) <= u).sum(-1, keepdim=True).clamp(max=codes - 1)

    torch.multinomial = draw
    try:
        yield
    finally:
        torch.multinomial = original
    assert used == uniforms.shape[1], f"{used} of {uniforms.shape[1]} random numbers were used"


def _bind(policy) -> Predict:
    config = policy.config

    def predict(batch: Batch) -> torch.Tensor:
        seen = {"observation.state": batch["observation.state"],
                "observation.images": torch.stack([batch[k] for k in config.image_features], dim=-4)}
        with drawn_from(batch[CHOICES]):
            return policy.vqbet(seen, rollout=True)[:, : config.action_chunk_size]

    return predict


def _noise(config) -> dict[str, torch.Tensor]:
    tokens = config.n_obs_steps + config.n_action_pred_token - 1
    return {CHOICES: uniform(1, CODE_LAYERS * tokens)}


def _no_download(config) -> None:
    config.pretrained_backbone_weights = None


FAMILY = Family("lerobot.policies.vqbet.modeling_vqbet", "VQBeTPolicy", _bind, ready=_no_download, noise=_noise,
                history=lambda config: config.n_obs_steps, execute=lambda config: config.action_chunk_size)
