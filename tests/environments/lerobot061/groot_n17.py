"""GR00T N1.7 checkpoints of random weights, tiny, written by LeRobot 0.6.1: a Qwen3-VL, the base model that LeRobot
begins from, and the policy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from tests.environments.lerobot.checkpoints import dataset_statistics, trained_tokenizer
from tests.samples.weights_by_name import draw_weights
from vlacompile.frontends.lerobot.importing import lerobot_importable

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' "
            "%}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
            "{% endfor %}")
CAMERAS = {"wrist": (48, 72), "base": (48, 72)}  # LeRobot stacks them
STATE = {"arm": 6, "eef": 9, "gripper": 1}
EMBODIMENTS = {"new_embodiment": 3, "robot": 2}


def qwen(folder: Path) -> str:
    """What the hub has of a Qwen3-VL: configuration, tokenizer and image processor. Depth and widths shrink; the levels
    of the vision tower that go to the first layers, interleaved positions, heads per key and patches stay."""
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLConfig

    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 4096,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
            "rope_theta": 5000000, "tie_word_embeddings": True}
    vision = {"deepstack_visual_indexes": [0, 1, 2], "depth": 4, "hidden_size": 32, "intermediate_size": 48,
              "num_heads": 2, "num_position_embeddings": 36, "out_hidden_size": 64, "patch_size": 16,
              "spatial_merge_size": 2, "temporal_patch_size": 2}
    ids = {name: SPECIAL.index(f"<|{token}|>") for name, token in (
        ("image_token_id", "image_pad"), ("video_token_id", "video_pad"), ("vision_start_token_id", "vision_start"),
        ("vision_end_token_id", "vision_end"))}
    Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids).save_pretrained(folder)
    Qwen2VLImageProcessor(patch_size=16, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=32 * 32,
                          max_pixels=512 * 512).save_pretrained(folder)
    video = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "video_processor_type":
             "Qwen3VLVideoProcessor", "size": {"shortest_edge": 1024, "longest_edge": 65536}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video), encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(SPECIAL), pad_token="<|endoftext|>", chat_template=
                            TEMPLATE, eos_token="<|im_end|>", extra_special_tokens={"image_token": "<|image_pad|>",
                            "video_token": "<|video_pad|>"}).save_pretrained(folder)
    return str(folder)


def spread(size: int, seed: int, rows: int | None = None) -> dict[str, list]:
    """Statistics of a group, or with a row for each step of the chunk."""
    draw = torch.Generator().manual_seed(seed)
    shape = (size,) if rows is None else (rows, size)
    centre, width = torch.randn(shape, generator=draw), 0.5 + torch.rand(shape, generator=draw)
    found = {"mean": centre, "std": width, "min": centre - 2 * width, "max": centre + 2 * width, "q01": centre - width,
             "q99": centre + width}
    return {k: v.tolist() for k, v in found.items()}


RELATIVE_STEPS = 12
RULES = {"arm": {"rep": "RELATIVE", "type": "NON_EEF", "format": "DEFAULT", "state_key": None},
         "eef": {"rep": "RELATIVE", "type": "EEF", "format": "XYZ_ROT6D", "state_key": "eef"},
         "gripper": {"rep": "ABSOLUTE", "type": "NON_EEF", "format": "DEFAULT", "state_key": None}}


def robot_files(folder: Path, tag: str = "robot", keys: dict | None = None, video: dict | None = None,
                **settings) -> None:
    """processor_config.json, statistics.json and embodiment_id.json of NVIDIA's code, for an embodiment. keys: of the
    state, that are given in another way. video: what else is said of the frames."""
    plain = {"sin_cos_embedding_keys": None, "mean_std_embedding_keys": None, "action_configs": None}
    robot = {"video": {"delta_indices": [0], "modality_keys": list(CAMERAS), **plain, **(video or {})},
             "state": {"delta_indices": [0], "modality_keys": list(STATE), **plain, **(keys or {})},
             "action": {"delta_indices": list(range(RELATIVE_STEPS)), "modality_keys": list(STATE), **plain,
                        "action_configs": [RULES[name] for name in STATE]},
             "language": {"delta_indices": [0], "modality_keys": ["annotation.human.action.task_description"], **plain}}
    kwargs = {"modality_configs": {tag: robot}, "image_crop_size": [56, 56], "image_target_size": [64, 64],
              "use_albumentations": False, "random_rotation_angle": None, "color_jitter_params": None,
              "shortest_image_edge": None, "crop_fraction": None, "letter_box_transform": False, "model_type": "qwen",
              "formalize_language": True, "max_state_dim": 132, "max_action_dim": 132, "max_action_horizon": 40,
              "use_percentiles": True, "use_mean_std": False, "clip_outliers": True, "exclude_state": False,
              "apply_sincos_state_encoding": False, "use_relative_action": True, "state_dropout_prob": 0.0} | settings
    statistics = {"state": {k: spread(n, i) for i, (k, n) in enumerate(STATE.items())},
                  "action": {k: spread(n, 10 + i) for i, (k, n) in enumerate(STATE.items())},
                  "relative_action": {k: spread(STATE[k], 20, RELATIVE_STEPS) for k in ("arm", "eef")}}
    for name, content in (("processor_config", {"processor_class": "Gr00tN1d7Processor", "processor_kwargs": kwargs}),
                          ("statistics", {tag: statistics}), ("embodiment_id", EMBODIMENTS)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def sizes(embodiments: int) -> dict:
    """Of a base model: every kind of block at least twice."""
    attention = {"dropout": 0.2, "final_dropout": True, "positional_embeddings": None, "num_attention_heads": 4,
                 "attention_head_dim": 16}
    return {"backbone_embedding_dim": 64, "backbone_model_type": "qwen", "hidden_size": 48, "input_embedding_dim": 64,
            "select_layer": 4, "max_num_embodiments": embodiments, "max_seq_len": 128, "model_dtype": "float32",
            "dtype": "float32", "diffusion_model_cfg": attention | {"num_layers": 8, "norm_type": "ada_norm",
                                                                    "output_dim": 48,
                                                                    "interleave_self_attention": True},
            "vl_self_attention_cfg": attention | {"num_layers": 2}}


def write(folder: Path, *, native: bool = False, embodiments: int = 4, processor: dict | None = None, **settings):
    """Save a checkpoint with its processors; the policy that was saved. native: the base model has statistics of the
    embodiment, whose actions are relative; otherwise they are of the dataset. processor: settings of the base's."""
    with lerobot_importable():
        from lerobot.configs.types import FeatureType, PolicyFeature
        from lerobot.policies.groot.configuration_groot import GrootConfig
        from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config
        from lerobot.policies.groot.modeling_groot import GrootPolicy
        from lerobot.policies.groot.processor_groot import make_groot_pre_post_processors

        torch.manual_seed(0)
        base = folder / "base"
        model = GR00TN17(GR00TN17Config(model_name=qwen(folder / "qwen"), **sizes(embodiments)),
                         load_backbone_weights=False)
        draw_weights(model)
        model.save_pretrained(base)
        if native:
            robot_files(base, **processor or {})
        dims = sum(STATE.values())
        inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *s)) for c, s in CAMERAS.items()}
        features = {"input_features": inputs | {"observation.state": PolicyFeature(FeatureType.STATE, (dims,))},
                    "output_features": {"action": PolicyFeature(FeatureType.ACTION, (dims,))}}
        config = GrootConfig(**features, base_model_path=str(base), use_bf16=False, device="cpu", push_to_hub=False,
                             embodiment_tag="robot" if native else "new_embodiment", **settings)
        policy = GrootPolicy(config).eval()
        pre, post = make_groot_pre_post_processors(config, dataset_statistics(features))
        for step in pre.steps:
            if hasattr(step, "embodiment_mapping"):
                step.embodiment_mapping = EMBODIMENTS
            if hasattr(step, "model_name"):
                step.model_name = str(folder / "qwen")
        for part in (policy, pre, post):
            part.save_pretrained(folder)
    return policy


@contextlib.contextmanager
def runs() -> Iterator[None]:
    """Inside, LeRobot's own N1.7 runs without dm-tree, of which it calls one function."""
    from lerobot.policies.groot import groot_n1_7
    from transformers import BatchFeature

    over = SimpleNamespace(map_structure=lambda f, batch: BatchFeature({k: f(v) for k, v in batch.items()}))
    with mock.patch.multiple(groot_n1_7, tree=over, require_package=lambda *a, **k: None):
        yield
