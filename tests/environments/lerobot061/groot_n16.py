"""Eagle 3 and the sizes of a GR00T N1.6, tiny: every kind of block at least twice."""

from __future__ import annotations

import json
from pathlib import Path

from tests.environments.lerobot.checkpoints import trained_tokenizer
from tests.environments.lerobot061 import groot_n17

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
CAMERAS = {"wrist": (48, 72), "base": (60, 60)}
TEMPLATE = ("{% set count = namespace(value=0) %}{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n"
            "{% for c in m['content'] %}{% if c['type'] == 'image' %}{% set count.value = count.value + 1 %}<image-"
            "{{ count.value }}>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}")


def eagle(folder: Path) -> Path:
    """What is beside the model in NVIDIA's code: sizes, tokenizer, template, image settings. Heads per key, a position
    table that grows, patches and the pixels of a token stay."""
    from transformers import PreTrainedTokenizerFast

    vision = {"model_type": "siglip2_vision_model", "patch_size": 14, "hidden_size": 48, "intermediate_size": 96,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_patches": 16, "full_attention_indexes": [1],
              "use_rope": False, "use_windows_attn": False, "window_size": 14}
    text = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1000000, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512,
            "max_position_embeddings": 4096}
    files = {
        "config.json": {"model_type": "eagle_3_vl", "vision_config": vision, "text_config": text, "select_layer": -1,
                        "image_token_index": SPECIAL.index("<IMG_CONTEXT>"), "use_pixel_shuffle": True,
                        "mlp_connector_layers": 2, "downsample_ratio": 0.5},
        "preprocessor_config.json": {"size": {"height": 448, "width": 448}, "image_mean": [0.5] * 3, "resample": 3,
                                     "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "do_resize": False},
        "processor_config.json": {"image_token": "<IMG_CONTEXT>", "pixels_per_token": 784, "image_start_token": "<img>",
                                  "image_end_token": "</img>", "image_placeholder": "image"},
        "chat_template.json": {"chat_template": TEMPLATE}}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(SPECIAL), pad_token="<|endoftext|>",
                                        eos_token="<|im_end|>", model_input_names=["input_ids", "attention_mask"])
    tokenizer.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def sizes(embodiments: int) -> dict:
    whole = groot_n17.sizes(embodiments) | {"backbone_model_type": "eagle", "max_state_dim": 29, "max_action_dim": 29,
                                            "action_horizon": 16}
    return {k: v for k, v in whole.items() if k not in ("vl_self_attention_cfg", "dtype", "model_dtype")}


def robot_files(folder: Path, tag: str, keys: dict | None = None, video: dict | None = None, **settings) -> None:
    """Of N1.7, without what N1.6 does not know."""
    groot_n17.robot_files(folder, tag, keys, video, **settings)
    file = folder / "processor_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    given = content["processor_kwargs"]
    for name in ("letter_box_transform", "use_mean_std", "exclude_state", "state_dropout_prob"):
        given.pop(name)
    given |= {"model_type": "eagle", "max_state_dim": 29, "max_action_dim": 29, "max_action_horizon": 16} | settings
    given["modality_configs"][tag]["video"]["modality_keys"] = list(CAMERAS)
    file.write_text(json.dumps(content | {"processor_class": "Gr00tN1d6Processor"}), encoding="utf-8")
