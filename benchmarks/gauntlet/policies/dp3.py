"""3D Diffusion Policy (Ze et al., RSS 2024): a point cloud through PointNet, and the U-Net with its DDIM sampler."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("3D Diffusion Policy", "YanjieZe/3D-Diffusion-Policy", "47385d9d6f5bde3f2ebdf2400ecb8261cc9e6b97")

HORIZON, ACTIONS, STEPS, POINTS = 16, 26, 10, 512


class Settings(dict):
    """Of omegaconf: a mapping whose keys are attributes too."""

    __getattr__ = dict.__getitem__


def make(checkout: Path) -> vc.Policy:
    with importable(checkout / "3D-Diffusion-Policy", stubs=("zarr", "termcolor", "pytorch3d", "numcodecs")):
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusion_policy_3d.policy.dp3 import DP3

        entry = MappingProxyType  # these are no dicts in omegaconf
        policy = DP3(
            {"obs": {"point_cloud": entry({"shape": [POINTS, 3], "type": "point_cloud"}),
                     "agent_pos": entry({"shape": [24], "type": "low_dim"})}, "action": {"shape": [ACTIONS]}},
            DDIMScheduler(num_train_timesteps=100, beta_start=0.0001, beta_end=0.02, beta_schedule="squaredcos_cap_v2",
                          clip_sample=True, set_alpha_to_one=True, steps_offset=0, prediction_type="sample"),
            horizon=HORIZON, n_action_steps=8, n_obs_steps=2, num_inference_steps=STEPS, diffusion_step_embed_dim=32,
            down_dims=(32, 64, 128), crop_shape=(80, 80), encoder_output_dim=64, pointcloud_encoder_cfg=Settings(
                in_channels=3, out_channels=64, use_layernorm=True, final_norm="layernorm", normal_channel=False))
        policy.normalizer.fit({"point_cloud": torch.randn(8, POINTS, 3), "agent_pos": torch.randn(8, 24),
                               "action": torch.randn(8, ACTIONS)})
    policy.eval()

    def infer(point_cloud, agent_pos, noise):
        with vc.drawn_from(normal=noise):
            return policy.predict_action({"point_cloud": point_cloud, "agent_pos": agent_pos})

    seen = vc.Source("observation", history=2)
    return vc.Policy("dp3", infer, {"point_cloud": seen, "agent_pos": seen, "noise": vc.Source("step")}, {
        "point_cloud": torch.randn(1, 2, POINTS, 3), "agent_pos": torch.randn(1, 2, 24),
        "noise": torch.randn(1, HORIZON, ACTIONS)})
