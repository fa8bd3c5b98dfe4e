"""GR-1 (Wu et al., ICLR 2024) with a history of ten frames of two cameras, as evaluated on CALVIN."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, without_gpu
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("GR-1", "bytedance/GR-1", "4a2e956bb497586d82489eb4c98b27fb82b5ff47", "gauntlet-prismatic")

FRAMES, WORDS = 10, 77


def make(checkout: Path) -> vc.Policy:
    without_gpu()
    with importable(checkout, stubs=("ftfy",)):
        import models.vision_transformer as vits
        import transformers.file_utils
        from clip.model import CLIP

        # of transformers 4.5, which decorates the docstring
        transformers.file_utils.add_code_sample_docstrings = lambda **words: lambda function: function
        from models.gr1 import GR1

        mae = vits.VisionTransformer(patch_size=16, num_classes=0, embed_dim=48, depth=3, num_heads=4, mlp_ratio=4,
                                     qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
        clip = CLIP(embed_dim=32, image_resolution=32, vision_layers=1, vision_width=64, vision_patch_size=16,
                    context_length=WORDS, vocab_size=1000, transformer_width=64, transformer_heads=2,
                    transformer_layers=2)
        policy = GR1(
            clip, mae, state_dim=7, act_dim=7, hidden_size=96, sequence_length=FRAMES, training_target=["act_pred"],
            img_feat_dim=48, patch_feat_dim=48, lang_feat_dim=32, use_hand_rgb=True, n_layer=4, n_head=12, n_inner=384,
            activation_function="relu", n_ctx=1024, n_positions=1024, resid_pdrop=0.1, attn_pdrop=0.1,
            resampler_params={"depth": 3, "dim_head": 16, "heads": 4, "num_latents": 9, "num_media_embeds": 1})
    policy.eval()

    def infer(language, rgb, hand_rgb, arm, gripper):
        out = policy(rgb, hand_rgb, {"arm": arm, "gripper": gripper}, language,
                     torch.ones(1, FRAMES, dtype=torch.long))
        return {"action": torch.cat([out["arm_action_preds"], out["gripper_action_preds"]], -1)}

    seen = vc.Source("observation", history=FRAMES)
    return vc.Policy("gr1", infer, {
        "language": vc.Source("task"), "rgb": seen, "hand_rgb": seen, "arm": seen, "gripper": seen}, {
        "language": torch.arange(1, WORDS + 1)[None], "rgb": torch.randn(1, FRAMES, 3, 224, 224),
        "hand_rgb": torch.randn(1, FRAMES, 3, 224, 224), "arm": torch.randn(1, FRAMES, 6),
        "gripper": torch.eye(2)[torch.zeros(FRAMES, dtype=torch.long)][None]})
