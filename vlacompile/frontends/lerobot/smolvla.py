"""SmolVLA (Shukor et al. 2025, arXiv 2506.01844): flow matching over a frozen prefix, ten Euler steps from t=1 to 0."""

from __future__ import annotations

from vlacompile.frontends.lerobot.read import NOISE, Family, Predict, normal


def _no_download(config) -> None:
    config.load_vlm_weights = False  # the checkpoint contains them
    config.compile_model = False


def _bind(policy) -> Predict:
    return lambda batch: policy.predict_action_chunk(batch, noise=batch.pop(NOISE))


FAMILY = Family(
    "lerobot.policies.smolvla.modeling_smolvla", "SmolVLAPolicy", _bind, ready=_no_download,
    noise=lambda config: {NOISE: normal(1, config.chunk_size, config.max_action_dim)},
    newline_steps=frozenset({"smolvla_new_line_processor"}))
