"""Diffusion Policy's U-Net (Chi et al., RSS 2023) on images, with the DDIM sampler of its real-robot configuration."""

from __future__ import annotations

from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("Diffusion Policy, U-Net", "real-stanford/diffusion_policy",
                    "5ba07ac6661db573af695b419a7947ecb704690f")

HORIZON, ACTIONS, STEPS = 16, 7, 16


def make(checkout: Path) -> vc.Policy:
    with importable(checkout, stubs=("zarr", "robomimic", "numcodecs", "threadpoolctl")):
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusion_policy.model.vision.model_getter import get_resnet
        from diffusion_policy.model.vision.multi_image_obs_encoder import MultiImageObsEncoder
        from diffusion_policy.policy.diffusion_unet_image_policy import DiffusionUnetImagePolicy

        shapes = {"obs": {"camera_0": {"shape": [3, 96, 96], "type": "rgb"},
                          "camera_1": {"shape": [3, 96, 96], "type": "rgb"}, "pose": {"shape": [7]}},
                  "action": {"shape": [ACTIONS]}}
        policy = DiffusionUnetImagePolicy(
            shapes, DDIMScheduler(num_train_timesteps=100, beta_start=0.0001, beta_end=0.02, clip_sample=True,
                                  beta_schedule="squaredcos_cap_v2", prediction_type="epsilon"),
            MultiImageObsEncoder(shapes, get_resnet("resnet18"), crop_shape=(84, 84), use_group_norm=True,
                                 imagenet_norm=True),
            horizon=HORIZON, n_action_steps=8, n_obs_steps=2, num_inference_steps=STEPS, diffusion_step_embed_dim=32,
            down_dims=(32, 64, 128))
        policy.normalizer.fit({"camera_0": torch.rand(8, 3, 96, 96), "camera_1": torch.rand(8, 3, 96, 96),
                               "pose": torch.randn(8, 7), "action": torch.randn(8, ACTIONS)})
    policy.eval()

    def infer(camera_0, camera_1, pose, noise):
        with vc.drawn_from(normal=noise):
            return policy.predict_action({"camera_0": camera_0, "camera_1": camera_1, "pose": pose})

    seen = vc.Source("observation", history=2)
    return vc.Policy("diffusion_unet", infer, {
        "camera_0": seen, "camera_1": seen, "pose": seen, "noise": vc.Source("step")}, {
        "camera_0": torch.rand(1, 2, 3, 96, 96), "camera_1": torch.rand(1, 2, 3, 96, 96),
        "pose": torch.randn(1, 2, 7), "noise": torch.randn(1, HORIZON, ACTIONS)})
