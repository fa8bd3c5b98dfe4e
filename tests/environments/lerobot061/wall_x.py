"""Checkpoints of Wall-X, written by LeRobot's own code at a small size, and what its training begins with."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.environments.lerobot.checkpoints import trained_tokenizer
from tests.environments.lerobot061 import registered
from tests.environments.lerobot061.registered import PLACES, QWEN
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.wall_x import complete, without_base

ACTIONS = ["<|action|>", "<|propri|>", "<|action_fast|>"]
DIMS, EXPERT = 20, 48


def base(folder: Path) -> str:
    """What X Square Robot publishes: configuration, processor and weights, which here are none."""
    from lerobot.policies.wall_x.qwen_model import Qwen2_5_VLConfig
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 96, "vocab_size": 512, "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "num_experts": 2, "mlp_moe": True, "dim_inputs": [64, 64], "dof_config": {"arm": DIMS},
            "experts": [{"hidden_size": 64, "intermediate_size": size, "hidden_act": "silu"} for size in (96, EXPERT)]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 14,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 112,
              "fullatt_block_indexes": [1]}
    Qwen2_5_VLConfig(text_config=text, vision_config=vision, **PLACES, agent_pos_config={"arm": DIMS}).save_pretrained(
        folder)
    frames = Qwen2VLImageProcessor(patch_size=14, temporal_patch_size=2, merge_size=2,
                                   size={"shortest_edge": 56**2, "longest_edge": 28**2 * 400})
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
             "vision_eos_token": "<|vision_end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer([*QWEN, *ACTIONS]), eos_token="<|im_end|>",
                                        pad_token="<|endoftext|>", extra_special_tokens=names)
    Qwen2_5_VLProcessor(frames, tokenizer, Qwen2VLVideoProcessor()).save_pretrained(folder)
    return str(folder)


def write(folder: Path, **settings) -> torch.nn.Module:
    """Saves a checkpoint with its processors; the policy that was saved, in fp32."""
    with lerobot_importable():
        complete()
        with without_base():
            return registered.write("wall_x", folder, pretrained_name_or_path=base(folder.parent / "base"),
                                    **{"chunk_size": 6, "n_action_steps": 4} | settings)
