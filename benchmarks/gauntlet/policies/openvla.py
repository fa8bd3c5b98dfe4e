"""OpenVLA (Kim et al., 2024): seven action tokens decoded one by one, from two vision transformers and Llama 2."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, numpy_in_torch, small_timm
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("OpenVLA", "openvla/openvla", "c8f03f48af692657d3060c19588038c7220e9af9", "gauntlet-prismatic")

EMPTY = 29871  # the token "", after which actions are decoded


def make(checkout: Path) -> vc.Policy:
    with importable(checkout / "prismatic" / "extern"), small_timm(embed_dim=48, depth=3, num_heads=4):
        from hf import modeling_prismatic as modeling
        from hf.configuration_prismatic import OpenVLAConfig
        from transformers.generation import utils as generation

        with numpy_in_torch(modeling):
            policy = modeling.OpenVLAForActionPrediction(OpenVLAConfig(
                norm_stats={"bridge": {"action": {"q01": [-0.5] * 7, "q99": [0.5] * 7, "mask": [True] * 6 + [False]}}},
                vision_backbone_id="dinosiglip-vit-so-224px", llm_backbone_id="llama2-7b-pure",
                arch_specifier="no-align+fused-gelu-mlp", text_config={
                    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "vocab_size": 32064}))
    # decode actions: other tokens are all clipped to one action
    policy.language_model.lm_head.weight.data[31744:32000] *= 100
    # always seven tokens: the end of a text would be decided by the tokens
    policy.generation_config.eos_token_id = policy.generation_config.pad_token_id = None
    policy.eval()

    def infer(tokens, pixels):
        ids = torch.cat([tokens, torch.tensor([[EMPTY]])], 1)
        # generate() refuses keyword arguments under PyTorch's exporter
        with numpy_in_torch(modeling), mock.patch.object(generation, "is_torchdynamo_compiling", lambda: False):
            action = policy.predict_action(ids, "bridge", pixel_values=pixels, do_sample=False,
                                           attention_mask=torch.ones_like(ids))
        return {"action": action.tensor.view(1, 1, 7)}

    return vc.Policy("openvla", infer, {"tokens": vc.Source("task"), "pixels": vc.Source("observation")}, {
        "tokens": torch.randint(3, 29000, (1, 24)), "pixels": torch.randn(1, 6, 224, 224)})
