"""SmolVLA (Shukor et al. 2025, arXiv 2506.01844): flow matching over a frozen prefix, ten Euler steps from t=1 to 0."""

from __future__ import annotations

import functools

import torch
from torch import nn

from vlacompile.frontends.lerobot.checkpoint import Tokenization
from vlacompile.frontends.lerobot.read import NOISE, Family, Predict, normal
from vlacompile.frontends.lerobot.versions import Reading, number


def _no_download(config) -> None:
    config.load_vlm_weights = False  # the checkpoint contains them
    config.compile_model = False


def _bind(policy) -> Predict:
    return lambda batch: policy.predict_action_chunk(batch, noise=batch.pop(NOISE))


def _read_as(policy: nn.Module, reading: Reading) -> None:
    import transformers

    if reading.first_patch_twice and number(transformers.__version__) >= (5,):
        vision = policy.model.vlm_with_expert.get_vlm_model().vision_model
        vision.embeddings.forward = functools.partial(_embed, vision.embeddings)


def _embed(patches: nn.Module, pixel_values: torch.Tensor, patch_attention_mask: torch.Tensor) -> torch.Tensor:
    """SmolVLMVisionEmbeddings.forward of transformers 4.54 to 4.57 for whole frames: fractions just below i/n fall
    into the bucket before, so that the patches of a side are numbered 0, 0, 1, ..., n - 2."""
    del patch_attention_mask  # the policy attends to whole frames
    side = patches.num_patches_per_side
    boundaries, rows = torch.arange(1 / side, 1.0, 1 / side), []
    for pixels in pixel_values.shape[-2:]:
        count = pixels // patches.patch_size
        rows.append(torch.bucketize(torch.arange(count) / count * (1 - 1e-6), boundaries, right=True))
    places = (rows[0][:, None] * side + rows[1]).flatten()
    return patches.patch_embedding(pixel_values).flatten(2).transpose(1, 2) + patches.position_embedding(places)[None]


def _tokenizer_of_old(config: dict) -> Tokenization:
    return Tokenization(config["vlm_model_name"], config["tokenizer_max_length"], "right", newline=True)


def _weights(policy: nn.Module, loaded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of a policy that was not compiled by torch.compile."""
    return {name.replace("model._orig_mod.", "model."): tensor for name, tensor in loaded.items()}


FAMILY = Family(
    "lerobot.policies.smolvla.modeling_smolvla", "SmolVLAPolicy", _bind, ready=_no_download,
    read_as=_read_as, weights=_weights, tokenizer_of_old=_tokenizer_of_old,
    noise=lambda config: {NOISE: normal(1, config.chunk_size, config.max_action_dim)},
    newline_steps=frozenset({"smolvla_new_line_processor"}))
