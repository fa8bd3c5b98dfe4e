"""Evo-1 checkpoints that are compared: tiny sizes, statistics, observations. Runs beside the authors' code too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SEEDS, EVERY, STEPS, HORIZON = 3, 3, 4, 8  # observations; of a chunk every third step; of denoising
STATE, ACTION, SIDE = 8, 7, 448
INSTRUCTION = "Pick up the red cube!"
ARM, DATASET = "franka", "libero_10"
CASES = {"bounds": {"attention": "eager", "images": 2, "normalization_type": "bounds"},
         "flash": {"attention": "flash", "images": 1, "normalization_type": "normal"}}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size":
          14, "image_size": SIDE, "norm_type": "layer_norm", "qkv_bias": True, "qk_normalization": False,
          "use_flash_attn": False, "layer_norm_eps": 1e-6, "hidden_act": "gelu", "model_type": "intern_vit_6b"}
LANGUAGE = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 48, "intermediate_size": 96,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
            "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu", "max_position_embeddings": 32768,
            "use_sliding_window": False, "tie_word_embeddings": False}
VLM = {"model_type": "internvl_chat", "vision_config": VISION, "llm_config": LANGUAGE, "select_layer": -1,
       "downsample_ratio": 0.5, "ps_version": "v2", "force_image_size": SIDE, "template": "internvl2_5"}
# OpenGVLab/InternVL3-1B, of which the policy keeps 14 layers
REAL = VLM | {"vision_config": VISION | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                                         "num_attention_heads": 16},
              "llm_config": LANGUAGE | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                                        "num_attention_heads": 14, "vocab_size": 151674}}
SIZES = {"embed_dim": 48, "hidden_dim": 64, "state_hidden_dim": 64, "num_heads": 4, "num_layers": 2, "horizon": HORIZON,
         "per_action_dim": 24, "state_dim": 24, "device": "cpu", "action_head": "flowmatching"}
REAL_SIZES = {"per_action_dim": 24, "state_dim": 24, "horizon": 50, "device": "cpu"}


def statistics() -> dict:
    found = {}
    for seed, (name, size) in enumerate((("observation.state", STATE), ("action", ACTION))):
        draw = np.random.default_rng(seed)
        centre, width = draw.standard_normal(size), 0.5 + draw.random(size)
        found[name] = {k: [round(float(x), 5) for x in v] for k, v in {
            "min": centre - 2 * width, "max": centre + 2 * width, "mean": centre, "std": width}.items()}
    return {ARM: {DATASET: found}}


def observation(seed: int, images: int) -> tuple[list[np.ndarray], np.ndarray]:
    """(frames uint8 [SIDE,SIDE,3], state f32 [STATE])"""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    return list(coarse.repeat(28, 1).repeat(28, 2)), draw.standard_normal(STATE).astype(np.float32)


def tokenizer() -> str:
    """The content of a tokenizer.json: a byte-level BPE of 400 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(["pick up the red cube and place it in the bin", "open the drawer"] * 10, trainer)
    return bpe.to_str()


TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>", "eos_token":
                    "<|im_end|>", "padding_side": "right", "model_input_names": ["input_ids", "attention_mask"]}


def write_vlm(folder: Path, sizes: dict = VLM) -> None:
    """What the Hub has of the backbone, without weights."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    for name, content in (("config", sizes), ("tokenizer_config", TOKENIZER_CONFIG)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
