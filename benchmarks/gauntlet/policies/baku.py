"""BAKU (Haldar et al., NeurIPS 2024) with FiLM, the deterministic head and action chunks, as configured for LIBERO."""

from __future__ import annotations

from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("BAKU", "siddhanthaldar/BAKU", "47e367059191de30ac4b6353ff5615fdef11d8c5",
                    note="act() keeps NumPy queues of observations; the glue has its lines between queue and robot")

CAMERAS, CHUNK = ("pixels", "pixels_egocentric"), 10


def make(checkout: Path) -> vc.Policy:
    with importable(checkout / "baku", stubs=("omegaconf", "robomimic", "accelerate")):
        from agent.baku import BCAgent

        agent = BCAgent(
            obs_shape={"pixels": (3, 128, 128), "pixels_egocentric": (3, 128, 128), "proprioceptive": (9,)},
            action_shape=(7,), device="cpu", lr=1e-4, hidden_dim=64, stddev_schedule=0.1, stddev_clip=0.3,
            use_tb=False, augment=True, obs_type="pixels", encoder_type="resnet", policy_type="gpt",
            policy_head="deterministic", pixel_keys=CAMERAS, proprio_key="proprioceptive", feature_key="features",
            use_proprio=True, train_encoder=True, norm=False, history=False, history_len=1, eval_history_len=1,
            separate_encoders=False, temporal_agg=True, max_episode_len=16, num_queries=CHUNK, prompt="text",
            use_language=True, film=True)
    agent.train(False)

    def infer(task_emb, pixels, pixels_egocentric, proprioceptive):
        lang = agent.language_projector(task_emb)
        features = [agent.encoder(camera, lang=lang) for camera in (pixels, pixels_egocentric)]
        features = torch.cat([lang, *features, agent.proprio_projector(proprioceptive)])
        action = agent.actor(features.unsqueeze(0), 1, 0.1).mean
        return {"action": action.view(-1, CHUNK, 7)}

    seen = vc.Source("observation")
    return vc.Policy("baku", infer, {
        "task_emb": vc.Source("task"), "pixels": seen, "pixels_egocentric": seen, "proprioceptive": seen}, {
        "task_emb": torch.randn(1, 384), "pixels": torch.rand(1, 3, 128, 128),
        "pixels_egocentric": torch.rand(1, 3, 128, 128), "proprioceptive": torch.randn(1, 9)})
