"""RDT (Liu et al., 2024): the transformer on encoded images and instruction, with its DPM-Solver++ sampler."""

from __future__ import annotations

from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, random_weights
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("RDT", "thu-ml/RoboticsDiffusionTransformer", "deb71d82278780d83253a28d9b904085559be400",
                    ranges={"lang_attn_mask": lambda rng: torch.arange(32)[None] < int(rng.integers(1, 33))})

ACTIONS, HORIZON, WORDS, PATCHES = 128, 64, 32, 16


def make(checkout: Path) -> vc.Policy:
    with importable(checkout):
        from models.rdt_runner import RDTRunner

        policy = RDTRunner(
            action_dim=ACTIONS, pred_horizon=HORIZON, lang_token_dim=48, img_token_dim=40, state_token_dim=ACTIONS,
            max_lang_cond_len=WORDS, img_cond_len=2 * 3 * PATCHES, dtype=torch.float32, config={
                "rdt": {"hidden_size": 64, "depth": 4, "num_heads": 4}, "lang_adaptor": "mlp2x_gelu",
                "img_adaptor": "mlp2x_gelu", "state_adaptor": "mlp3x_gelu", "noise_scheduler": {
                    "num_train_timesteps": 1000, "num_inference_timesteps": 5, "beta_schedule": "squaredcos_cap_v2",
                    "prediction_type": "sample", "clip_sample": False}},
            img_pos_embed_config=[("image", (2, 3, -PATCHES))], lang_pos_embed_config=[("lang", -WORDS)])
    random_weights(policy).eval()

    def infer(lang_tokens, lang_attn_mask, img_tokens, state_tokens, action_mask, ctrl_freqs, noise):
        with vc.drawn_from(normal=noise):
            return {"action": policy.predict_action(lang_tokens, lang_attn_mask, img_tokens, state_tokens, action_mask,
                                                    ctrl_freqs)}

    task, seen = vc.Source("task"), vc.Source("observation")
    return vc.Policy("rdt", infer, {
        "lang_tokens": task, "lang_attn_mask": task, "img_tokens": seen, "state_tokens": seen, "action_mask": task,
        "ctrl_freqs": task, "noise": vc.Source("step")}, {
        "lang_tokens": torch.randn(1, WORDS, 48), "lang_attn_mask": torch.arange(WORDS)[None] < 20,
        "img_tokens": torch.randn(1, 2 * 3 * PATCHES, 40), "state_tokens": torch.randn(1, 1, ACTIONS),
        "action_mask": (torch.arange(ACTIONS) < 14).float()[None, None], "ctrl_freqs": torch.tensor([25]),
        "noise": torch.randn(1, HORIZON, ACTIONS)})
