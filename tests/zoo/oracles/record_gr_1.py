"""Runs the authors' GR-1 on seeded inputs:

    git clone https://github.com/bytedance/GR-1 && git -C GR-1 checkout 4a2e956
    .venv/environments/gauntlet-prismatic/bin/python -m tests.zoo.oracles.record_gr_1 GR-1
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.gauntlet.importing import importable, without_gpu
from tests.zoo.oracles.recorded import fill, grey_levels, numbers, write

FRAMES, WORDS, SIDES, SIDE = 10, 77, (28, 12), 32


@torch.no_grad()
def record(checkout: Path) -> None:
    without_gpu()
    with importable(checkout, stubs=("ftfy",)):
        import models.vision_transformer as vits
        import transformers.file_utils
        from clip.model import CLIP

        # of transformers 4.5, which decorates the docstring
        transformers.file_utils.add_code_sample_docstrings = lambda **words: lambda function: function
        from models.gr1 import GR1

        mae = vits.VisionTransformer(img_size=[SIDE], patch_size=16, num_classes=0, embed_dim=32, depth=2, num_heads=2,
                                     mlp_ratio=4, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
        clip = CLIP(embed_dim=24, image_resolution=32, vision_layers=1, vision_width=64, vision_patch_size=16,
                    context_length=WORDS, vocab_size=100, transformer_width=32, transformer_heads=2,
                    transformer_layers=2)
        policy = GR1(
            clip, mae, state_dim=7, act_dim=7, hidden_size=48, sequence_length=FRAMES,
            training_target=["act_pred", "fwd_pred", "fwd_pred_hand"], img_feat_dim=32, patch_feat_dim=32,
            lang_feat_dim=24, use_hand_rgb=True, n_layer=2, n_head=4, n_inner=192, activation_function="relu",
            n_ctx=1024, n_positions=1024, resid_pdrop=0.1, attn_pdrop=0.1,
            resampler_params={"depth": 3, "dim_head": 8, "heads": 2, "num_latents": 9, "num_media_embeds": 1})
    fill(policy)
    pixels = [prepared(grey_levels(i, FRAMES, side, side, 3)) for i, side in enumerate(SIDES)]
    arm, open_ = numbers(9, 1, FRAMES, 6), torch.arange(FRAMES)[None] < 4
    words = (torch.arange(WORDS)[None] + 7) * (torch.arange(WORDS) < 9) + 99 * (torch.arange(WORDS) == 9)
    out = policy(*pixels, {"arm": arm, "gripper": F.one_hot(open_.long(), 2).float()}, words,
                 torch.ones(1, FRAMES, dtype=torch.long))
    # as the evaluation reads it, but with the gripper before its threshold
    answer = torch.cat([out["arm_action_preds"], torch.sigmoid(out["gripper_action_preds"])], -1)[0, -1]
    import torchvision

    write("gr_1", checkout, answer[None], torchvision=torchvision.__version__, transformers=transformers.__version__)


def prepared(frames: torch.Tensor) -> torch.Tensor:
    """As its evaluation prepares frames; torchvision did not smooth tensors then."""
    from torchvision.transforms import functional

    x = functional.resize((frames / 255.0).permute(0, 3, 1, 2), [SIDE, SIDE],
                          functional.InterpolationMode.BICUBIC, antialias=False)
    return functional.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]


if __name__ == "__main__":
    record(Path(sys.argv[1]))
