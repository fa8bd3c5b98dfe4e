"""ACT (Zhao et al. 2023, arXiv 2304.13705): one forward pass per chunk; the VAE encoder is for training."""

from __future__ import annotations

from vlacompile.frontends.lerobot.read import Family, Predict


def _no_download(config) -> None:
    config.pretrained_backbone_weights = None  # the checkpoint contains them


def _bind(policy) -> Predict:
    return policy.predict_action_chunk


FAMILY = Family("lerobot.policies.act.modeling_act", "ACTPolicy", _bind, ready=_no_download,
                ensemble=lambda config: config.temporal_ensemble_coeff)
