"""Diffusion Policy's transformer (Chi et al., RSS 2023) on keypoints, with its DDPM sampler."""

from __future__ import annotations

from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("Diffusion Policy, transformer", "real-stanford/diffusion_policy",
                    "5ba07ac6661db573af695b419a7947ecb704690f")

HORIZON, ACTIONS, STEPS = 10, 2, 100


def make(checkout: Path) -> vc.Policy:
    with importable(checkout, stubs=("zarr", "numcodecs", "threadpoolctl")):
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
        from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
        from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy

        model = TransformerForDiffusion(ACTIONS, ACTIONS, HORIZON, n_obs_steps=2, cond_dim=20, n_layer=8, n_head=4,
                                        n_emb=32, causal_attn=True, time_as_cond=True, obs_as_cond=True)
        policy = DiffusionTransformerLowdimPolicy(
            model, DDPMScheduler(num_train_timesteps=STEPS, beta_start=0.0001, beta_end=0.02, clip_sample=True,
                                 beta_schedule="squaredcos_cap_v2", prediction_type="epsilon"),
            horizon=HORIZON, obs_dim=20, action_dim=ACTIONS, n_action_steps=8, n_obs_steps=2,
            num_inference_steps=STEPS, obs_as_cond=True)
        policy.normalizer.fit({"obs": torch.randn(8, 20), "action": torch.randn(8, ACTIONS)})
    policy.eval()

    def infer(obs, noise):
        with vc.drawn_from(normal=noise):  # the trajectory, then the noise of all steps but the last
            return policy.predict_action({"obs": obs})

    return vc.Policy("diffusion_transformer", infer, {
        "obs": vc.Source("observation", history=2), "noise": vc.Source("step")},
        {"obs": torch.randn(1, 2, 20), "noise": torch.randn(STEPS, HORIZON, ACTIONS)})
