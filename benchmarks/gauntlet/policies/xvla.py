"""X-VLA (Zheng et al., 2025), as LeRobot's main branch has it: Florence-2's encoder, soft prompts per robot."""

from __future__ import annotations

from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, random_weights, without_init
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("X-VLA", "huggingface/lerobot", "7427f31801f944f5ec9ce53cda02862ce7d1638b", "huggingface",
                    note="LeRobot's port, since the authors' repository loads its code from the network")

VIEWS, CHUNK, ACTIONS, WORDS, VOCABULARY = 2, 30, 20, 32, 1000


def make(checkout: Path) -> vc.Policy:
    without_init(checkout / "src", "lerobot", "lerobot.policies", "lerobot.policies.xvla")
    with importable(checkout / "src", stubs=(
            "lerobot.configs", "lerobot.optim", "lerobot.utils", "lerobot.policies.common",
            "lerobot.policies.pretrained", "lerobot.policies.utils")):
        from lerobot.policies.xvla.configuration_xvla import XVLAConfig
        from lerobot.policies.xvla.modeling_xvla import XVLAModel

        config = XVLAConfig(
            chunk_size=CHUNK, n_action_steps=CHUNK, hidden_size=64, depth=4, num_heads=4, num_domains=30,
            len_soft_prompts=32, dim_time=32, action_mode="ee6d", max_state_dim=ACTIONS, florence_config={
                "vision_config": {"embed_dim": [16, 32, 48, 64], "num_heads": [2, 4, 6, 8],
                                  "num_groups": [2, 4, 6, 8], "depths": [1, 1, 2, 1], "projection_dim": 64},
                "text_config": {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4,
                                "encoder_ffn_dim": 128, "vocab_size": VOCABULARY}})
        policy = XVLAModel(config, config.get_florence_config(), proprio_dim=ACTIONS)
    random_weights(policy).eval()
    steps = config.num_denoising_steps

    def infer(words, front, wrist, domain, proprio, noise):
        with vc.drawn_from(normal=noise):
            return {"action": policy.generate_actions(
                words, torch.stack([front, wrist], 1), torch.ones(1, VIEWS, dtype=torch.bool), domain, proprio,
                steps)}

    seen, task = vc.Source("observation"), vc.Source("task")
    return vc.Policy("xvla", infer, {
        "words": task, "front": seen, "wrist": seen, "domain": task, "proprio": seen, "noise": vc.Source("step")}, {
        "words": torch.randint(3, VOCABULARY, (1, WORDS)), "front": torch.randn(1, 3, 224, 224),
        "wrist": torch.randn(1, 3, 224, 224), "domain": torch.tensor([7]), "proprio": torch.randn(1, ACTIONS),
        "noise": torch.randn(1, CHUNK, ACTIONS)})
