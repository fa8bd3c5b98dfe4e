"""Evo-1 (Lin et al., 2025): InternVL3 with a flow-matching head, from images in [0, 1] to actions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, random_weights
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("Evo-1", "MINT-SJTU/Evo-1", "1bf31c43f9cf36aa375f13c68eea991618635248", limit=2e-2,
                    ranges={"noise": lambda rng: torch.from_numpy(rng.random((1, HORIZON * ACTIONS), "f4"))},
                    note="the original computes its backbone in bf16; InternVL3 is transformers' own; the instruction "
                         "is fixed, since where image tokens lie is read from it")

HORIZON, ACTIONS, STEPS, SIDE, TOKENS, IMAGE_TOKEN = 50, 24, 32, 448, 256, 500


class Ids(dict):
    def to(self, device):
        return self


class Tokenizer:
    """The prompt as ids: for each of two images a start, its places and an end, then words; padded to the end."""

    def __call__(self, prompts, padding, truncation, max_length=0, **words):
        image = [1, *[IMAGE_TOKEN] * TOKENS, 2]
        ids = torch.tensor([image + image + list(range(3, 20))])
        return Ids(input_ids=torch.nn.functional.pad(ids, (0, max(0, max_length - ids.shape[1]))),
                   attention_mask=torch.nn.functional.pad(torch.ones_like(ids), (0, max(0, max_length - ids.shape[1]))))

    def convert_tokens_to_ids(self, token):
        return IMAGE_TOKEN


def make(checkout: Path) -> vc.Policy:
    with importable(checkout / "Evo_1", checkout / "Evo_1" / "scripts"):
        from config import EvoConfig
        from Evo1 import EVO1
        from model.internvl3 import internvl3_embedder
        from transformers.models.internvl import InternVLConfig, InternVLModel

        class InternVL3(InternVLModel):
            num_image_token = TOKENS

            def extract_feature(self, pixels):
                return self.get_image_features(pixels, -1, "default")

        config = InternVLConfig(
            vision_config={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                           "intermediate_size": 128, "image_size": [SIDE, SIDE], "patch_size": [14, 14]},
            text_config={"model_type": "qwen2", "hidden_size": 96, "num_hidden_layers": 16, "num_attention_heads": 6,
                         "num_key_value_heads": 2, "intermediate_size": 192, "vocab_size": 512})
        internvl3_embedder.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *name, **how: Tokenizer())
        internvl3_embedder.AutoModel = SimpleNamespace(
            from_pretrained=lambda *name, torch_dtype, **how: InternVL3(config).to(torch_dtype))
        policy = EVO1(EvoConfig(
            device="cpu", return_cls_only=False, action_head="flowmatching", embed_dim=96, hidden_dim=128, num_heads=8,
            num_layers=4, state_dim=ACTIONS, state_hidden_dim=64, horizon=HORIZON, per_action_dim=ACTIONS,
            num_inference_timesteps=STEPS, enable_gradient_checkpointing=False))
    random_weights(policy).eval()

    def infer(front, wrist, state, action_mask, noise):
        with vc.drawn_from(uniform=noise):
            return {"action": policy.run_inference([front[0], wrist[0]], torch.ones(2, dtype=torch.bool), "", state,
                                                   action_mask=action_mask).view(1, HORIZON, ACTIONS)}

    seen = vc.Source("observation")
    return vc.Policy("evo1", infer, {
        "front": seen, "wrist": seen, "state": seen, "action_mask": vc.Source("task"), "noise": vc.Source("step")}, {
        "front": torch.rand(1, 3, SIDE, SIDE), "wrist": torch.rand(1, 3, SIDE, SIDE),
        "state": torch.randn(1, ACTIONS), "action_mask": torch.arange(ACTIONS)[None] < 7,
        "noise": torch.rand(1, HORIZON * ACTIONS)})
