"""Checkpoints of FastWAM, written by LeRobot's own code at a small size, and the model of Wan 2.2 that it sees by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from tests.environments.lerobot061 import registered
from tests.environments.lerobot061.registered import STATE, tokenizer, unlike_fresh
from vlacompile.frontends.lerobot.importing import lerobot_importable

HEIGHT, WIDTH, CAMERAS = 32, 64, ("observation.images.top", "observation.images.wrist")
DIT = {"hidden_dim": 48, "ffn_dim": 64, "freq_dim": 16, "text_dim": 32, "num_heads": 4, "attn_head_dim": 12,
       "num_layers": 2, "eps": 1e-6, "use_gradient_checkpointing": False, "fp32_attention": True}
VIDEO = {"patch_size": [1, 2, 2], "in_dim": 48, "out_dim": 48, "seperated_timestep": True, "action_conditioned": False,
         "video_attention_mask_mode": "first_frame_causal", "action_dim": 6,
         "action_group_causal_mask_mode": "group_diagonal"}


def wan(folder: Path) -> str:
    """What the hub would send: autoencoder and text encoder, with the structure of Wan 2.2's."""
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    draw = torch.Generator().manual_seed(5)
    latents = {name: (0.5 + torch.rand(48, generator=draw)).tolist() for name in ("latents_mean", "latents_std")}
    AutoencoderKLWan(base_dim=8, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, in_channels=12,
                     out_channels=12, patch_size=2, is_residual=True, scale_factor_spatial=16,
                     **latents).save_pretrained(folder / "vae")
    UMT5EncoderModel(UMT5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=512,
                                feed_forward_proj="gated-gelu")).save_pretrained(folder / "text_encoder")
    return str(folder)


def features(kind: str) -> dict:
    from lerobot.configs.types import FeatureType, PolicyFeature

    frames = {name: PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH // len(CAMERAS))) for name in CAMERAS}
    return {"input_features": frames | {STATE: PolicyFeature(FeatureType.STATE, (6,))},
            "output_features": {"action": PolicyFeature(FeatureType.ACTION, (6,))}, "device": "cpu",
            "push_to_hub": False}


def trained(policy: torch.nn.Module) -> None:
    """Frame, state and instruction move its actions: gates of a fresh one are near zero."""
    unlike_fresh(policy)
    draw = torch.Generator().manual_seed(13)
    for name, weight in policy.named_parameters():
        if "modulation" in name:
            weight.data.normal_(0, 1, generator=draw)
        elif "embedding" in name and weight.dim() == 2:
            weight.data.normal_(0, weight.shape[-1] ** -0.5, generator=draw)


@contextlib.contextmanager
def downloaded(folder: Path) -> Iterator[None]:
    """Within this context, Wan 2.2's repository is this folder."""
    with lerobot_importable():
        from lerobot.policies.fastwam.wan import components
    with mock.patch.object(components, "WAN22_DIFFUSERS_MODEL_ID", str(folder)):
        yield


def write(folder: Path, **settings) -> torch.nn.Module:
    """Saves a checkpoint with its processors; the policy that was saved, in fp32."""
    with lerobot_importable():
        base = wan(folder.parent / "wan")
        options = {"video_dit_config": DIT | VIDEO, "action_dit_config": DIT | {"action_dim": 6, "hidden_dim": 32},
                   "action_dim": 6, "proprio_dim": 6, "image_size": (HEIGHT, WIDTH), "action_horizon": 8,
                   "n_action_steps": 6, "num_inference_steps": 3, "torch_dtype": "float32", "base_model_id": None,
                   "text_encoder_model_id": base, "tokenizer_model_id": tokenizer(folder.parent / "tokenizer"),
                   "tokenizer_max_len": 128, "context_len": 128, "toggle_action_dimensions": [-1]}
        with downloaded(Path(base)):
            return registered.write("fastwam", folder, own=features, change=trained, **options | settings)
