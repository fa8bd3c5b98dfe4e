"""Checkpoints of MolmoAct2, written by LeRobot's own code at a small size, and what their training begins with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.environments.lerobot.checkpoints import dataset_statistics, trained_tokenizer
from tests.environments.lerobot.parity import observation
from tests.environments.lerobot061 import registered
from tests.environments.lerobot061.registered import STATE
from vlacompile.frontends.lerobot.importing import lerobot_importable

STATES, STEPS = 256, 4  # values of a state's token; of the flow
IMAGE = ["<im_patch>", "<im_low>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>",
         "<im_col>", "<|image|>", "<|video|>"]
SPANS = [f"<{name}_{end}>" for name in ("state", "action", "setup", "control", "depth") for end in ("start", "end")]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE, *SPANS, "<action_output>",
          *(f"<state_{i}>" for i in range(STATES)), *(f"<action_{i}>" for i in range(8))]
IDS = {name: i for i, name in enumerate(TOKENS)}
VOCABULARY = 800
PROCESSOR = {"size": {"height": 70, "width": 70}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
             "max_crops": 3, "overlap_margins": [1, 1], "crop_mode": "resize", "patch_size": 14, "pooling_size": [2, 2]}


def sizes(**settings):
    """As Allen AI's, of a few layers: features of two layers of the vision transformer, pooled two by two over an odd
    number of patches; an expert's layer for each layer of the language model, which normalises queries and keys."""
    from lerobot.policies.molmoact2.molmoact2_hf_model.configuration_molmoact2 import (
        MolmoAct2ActionExpertConfig,
        MolmoAct2AdapterConfig,
        MolmoAct2Config,
        MolmoAct2TextConfig,
        MolmoAct2VitConfig,
    )

    vision = MolmoAct2VitConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
                                num_key_value_heads=4, head_dim=8, image_default_input_size=(70, 70), image_num_pos=25,
                                attn_implementation="sdpa")
    adapter = MolmoAct2AdapterConfig(vit_layers=(-1, -3), pooling_attention_mask=True, hidden_size=32,
                                     num_attention_heads=4, num_key_value_heads=4, head_dim=8, intermediate_size=64,
                                     text_hidden_size=48, attn_implementation="sdpa")
    text = MolmoAct2TextConfig(hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                               vocab_size=VOCABULARY - 128, additional_vocab_size=128, num_hidden_layers=3,
                               intermediate_size=64, max_position_embeddings=512, use_qk_norm=True,
                               qk_norm_type="qwen3", attn_implementation="sdpa")
    expert = MolmoAct2ActionExpertConfig(hidden_size=32, num_layers=3, num_heads=4, ffn_multiple_of=16,
                                         timestep_embed_dim=16)
    named = {"image_start_token_id": "<im_start>", "low_res_image_start_token_id": "<low_res_im_start>",
             "image_end_token_id": "<im_end>", "image_low_res_id": "<im_low>", "image_patch_id": "<im_patch>",
             "image_col_id": "<im_col>", "frame_start_token_id": "<frame_start>", "frame_end_token_id": "<frame_end>",
             "action_output_token_id": "<action_output>", "action_start_token_id": "<action_start>",
             "action_end_token_id": "<action_end>", "action_token_start_id": "<action_0>",
             "state_start_token_id": "<state_start>", "state_end_token_id": "<state_end>",
             "state_token_start_id": "<state_0>", "depth_start_token_id": "<depth_start>",
             "depth_end_token_id": "<depth_end>", "eos_token_id": "<|im_end|>"}
    return MolmoAct2Config(vision, adapter, text, expert, **{key: IDS[token] for key, token in named.items()},
                           num_state_tokens=STATES, num_action_tokens=8, flow_matching_num_steps=STEPS, **settings)


def base(folder: Path, crop_mode: str, **settings) -> str:
    """What Allen AI publishes: configuration, processor, tokenizer and weights."""
    from lerobot.policies.molmoact2.molmoact2_hf_model.modeling_molmoact2 import MolmoAct2ForConditionalGeneration
    from transformers import PreTrainedTokenizerFast

    model = MolmoAct2ForConditionalGeneration(sizes(**settings))
    for weight in model.parameters():  # so large that each token counts, as in a trained one
        if weight.dim() > 1:
            weight.data.normal_(0, weight.shape[-1] ** -0.5, generator=torch.Generator().manual_seed(len(weight)))
    for embedding in (model.model.transformer.wte.embedding, model.model.transformer.wte.new_embedding):
        embedding.data *= 5
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(TOKENS), pad_token="<|endoftext|>",
                                        eos_token="<|im_end|>")
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({
        "image_processor": PROCESSOR | {"crop_mode": crop_mode, "image_processor_type": "MolmoAct2ImageProcessor"},
        "video_processor": {"patch_size": 14}}), encoding="utf-8")
    return str(folder)


def statistics(declared: dict) -> dict:
    """The gripper, which is not normalised, moves from 0 to 1."""
    found = dataset_statistics(declared)
    for name in (STATE, "action"):
        for statistic, value in (("min", 0.0), ("max", 1.0), ("q01", 0.0), ("q99", 1.0)):
            found[name][statistic][-1] = value
    return found


def seen(policy: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Some numbers of the state are beyond the statistics; the gripper is not, which LeRobot would refuse."""
    found = observation(policy, seed)
    found[STATE][-1] = np.random.default_rng(seed).uniform(0.0, 1.0)
    return found


def features(kind: str) -> dict:
    """Two cameras, whose frames are no squares."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    declared = registered.features(kind)
    frames = {name: PolicyFeature(FeatureType.VISUAL, (3, 62, 74)) for name in declared["input_features"]
              if name != STATE}
    return declared | {"input_features": declared["input_features"] | frames}


def write(folder: Path, crop_mode: str = "resize", model: dict | None = None, **settings) -> torch.nn.Module:
    """Saves a checkpoint with its processors; the policy that was saved, in fp32. model: settings of the base."""
    with lerobot_importable():
        named = {"observation.state": [f"joint_{i}" for i in range(5)] + ["gripper"]}
        options = {"checkpoint_path": base(folder.parent / "base", crop_mode, **(model or {})), "chunk_size": 6,
                   "n_action_steps": 4, "action_mode": "continuous", "inference_action_mode": "continuous",
                   "model_dtype": "float32", "setup_type": "single arm", "control_mode": "joint position",
                   "dataset_feature_names": named}
        return registered.write("molmoact2", folder, own=features, statistics=statistics, **options | settings)
