"""Records what NVIDIA's own code does with GR00T N1.7 checkpoints that it saved: isaac_n17.json.

python -m tests.environments.lerobot061.record_n17 CHECKOUT PACKAGES

CHECKOUT: of NVIDIA/Isaac-GR00T (recorded: 23ace64). PACKAGES: a folder with what it imports and inference calls, by
`pip install --no-deps --target PACKAGES albumentations==1.4.18 albucore==0.0.17 opencv-python-headless==4.11.0.86
dm-tree scipy pydantic pydantic_core annotated-types typing-inspection eval_type_backport tyro docstring_parser
typeguard`. Run in the environment lerobot, whose transformers is of the version that N1.7 asks for. Its policy computes
in bf16; here all of it is in fp32.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch

from tests.environments import isaac
from tests.environments.lerobot061 import groot_n17 as tiny
from tests.samples.weights_by_name import draw_weights
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed

RECORDED = Path(__file__).with_name("isaac_n17.json")
NAME = "nvidia/Cosmos-Reason2-tiny"  # N1.7 takes no other name than nvidia/Cosmos-Reason2...
TAG = "new_embodiment"
NOT_CALLED = ("accelerate", "av", "click", "cryptography", "datasets", "decord", "deepspeed", "git", "gymnasium",
              "jsonlines", "lmdb", "matplotlib", "omegaconf", "pandas", "peft", "pyarrow", "skimage", "sklearn",
              "termcolor", "torchcodec", "wandb")
CASES = {
    "torchvision": {},
    "opencv": {"use_albumentations": True, "shortest_image_edge": 64, "crop_fraction": 0.95, "image_crop_size": None,
               "image_target_size": None, "use_percentiles": False},
    "encodings": {"apply_sincos_state_encoding": True, "clip_outliers": False, "use_relative_action": False,
                  "formalize_language": False,
                  "keys": {"sin_cos_embedding_keys": ["arm"], "mean_std_embedding_keys": ["gripper"]}},
    "two frames": {"video": {"delta_indices": [-2, 0]}},
}


def record(folder: Path) -> dict:
    from gr00t.configs.model.gr00t_n1d7 import Gr00tN1d7Config
    from gr00t.model.gr00t_n1d7.gr00t_n1d7 import Gr00tN1d7
    from gr00t.model.gr00t_n1d7.processing_gr00t_n1d7 import Gr00tN1d7Processor
    from gr00t.policy.gr00t_policy import Gr00tPolicy
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    tiny.qwen(folder / NAME)
    Qwen3VLForConditionalGeneration(AutoConfig.from_pretrained(folder / NAME)).save_pretrained(folder / NAME)
    model = Gr00tN1d7(Gr00tN1d7Config(model_name=NAME, use_flash_attention=False, **tiny.sizes(4)))
    draw_weights(model)
    out: dict = {"cases": {}}
    for case, settings in CASES.items():
        saved = folder / case
        model.save_pretrained(saved)
        out["weights"] = isaac.saved_weights(saved)
        out["config"] = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        tiny.robot_files(saved, TAG, **settings)
        given = json.loads((saved / "statistics.json").read_text(encoding="utf-8"))
        processor = Gr00tN1d7Processor.from_pretrained(saved, model_name=NAME)
        processor.save_pretrained(saved)
        policy = Gr00tPolicy(TAG, str(saved), device="cpu")
        files = {n: json.loads((saved / n).read_text(encoding="utf-8"))
                 for n in ("processor_config.json", "statistics.json", "embodiment_id.json")}
        assert files.pop("statistics.json") == given, "the statistics are saved as they were given"
        frames = len(policy.modality_configs["video"].delta_indices)
        out["cases"][case] = {**files, "actions": [isaac.asked(policy, seed, tiny.CAMERAS, tiny.STATE, frames)
                                                   for seed in range(isaac.SEEDS)]}
    return out | {"real": real(folder)}


# Of the released base model: NVIDIA's defaults of today, and Cosmos-Reason2-2B
REAL = {"select_layer": 16, "diffusion_model_cfg": {
    "positional_embeddings": None, "num_layers": 32, "num_attention_heads": 32, "attention_head_dim": 48, "norm_type":
    "ada_norm", "dropout": 0.2, "final_dropout": True, "output_dim": 1024, "interleave_self_attention": True},
    "vl_self_attention_cfg": {"positional_embeddings": None, "num_layers": 4, "num_attention_heads": 32,
                              "attention_head_dim": 64, "dropout": 0.2, "final_dropout": True}}
COSMOS = {"tie_word_embeddings": True, "text_config": {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True, "rope_scaling": {
        "mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}}, "vision_config": {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
    "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17]}}


def real(folder: Path) -> dict:
    """Names and shapes of the released size, without weights."""
    from gr00t.configs.model.gr00t_n1d7 import Gr00tN1d7Config
    from gr00t.model.gr00t_n1d7.gr00t_n1d7 import Gr00tN1d7
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.distributions.Distribution.set_default_validate_args(False)  # which reads numbers of the meta device
    with torch.device("meta"), mock.patch.object(Qwen3VLForConditionalGeneration, "from_pretrained", lambda *a, **k:
                                                 Qwen3VLForConditionalGeneration(Qwen3VLConfig(**COSMOS))):
        model = Gr00tN1d7(Gr00tN1d7Config(model_name=NAME, **REAL))
    model.config.model_name = "nvidia/Cosmos-Reason2-2B"
    model.config.save_pretrained(folder / "real")
    return {"config": json.loads((folder / "real" / "config.json").read_text(encoding="utf-8")),
            "weights": isaac.weights_of(model)}


def main(checkout: str, packages: str) -> None:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    sys.path.insert(0, checkout)
    sys.path.append(packages)
    declare_torchvision_ops()
    from transformers import AutoModel, AutoProcessor, Qwen3VLProcessor  # noqa: F401 (before the stubs)

    with stubbed(NOT_CALLED), isaac.in_fp32() as folder, torch.inference_mode():
        found = record(folder)
    RECORDED.write_text(isaac.lines(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
