"""Records what NVIDIA's own code does with GR00T N1.6 checkpoints that it saved: isaac_n16.json.

python -m tests.environments.lerobot061.record_n16 CHECKOUT PACKAGES

CHECKOUT: of NVIDIA/Isaac-GR00T before N1.7 (recorded: 92f523d); its copy of Eagle's files is replaced by tiny ones in a
temporary copy. PACKAGES: as record_n15.py has them. Run in the environment lerobot. Its policy computes in bf16, its
vision tower with FlashAttention: here all is in fp32, and images attend to themselves by PyTorch's own attention.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from tests.environments import isaac
from tests.environments.lerobot061 import groot_n16 as tiny
from tests.environments.lerobot061.groot_n17 import STATE
from tests.samples.weights_by_name import draw_weights
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed

RECORDED = Path(__file__).with_name("isaac_n16.json")
NAME = "nvidia/Eagle-Block2A-2B-v2"  # N1.6 takes no other
TAG = "new_embodiment"
NOT_CALLED = ("accelerate", "av", "click", "cryptography", "datasets", "decord", "deepspeed", "git", "gymnasium",
              "jsonlines", "lmdb", "matplotlib", "msgpack", "msgpack_numpy", "omegaconf", "pandas", "peft", "pyarrow",
              "skimage", "sklearn", "termcolor", "torchcodec", "wandb", "zmq")
GEOMETRY = {"use_albumentations": True, "shortest_image_edge": 90, "crop_fraction": 0.95, "image_crop_size": None,
            "image_target_size": None}
CASES = {
    "torchvision": {"image_target_size": [90, 90], "image_crop_size": [80, 80]},
    "opencv": GEOMETRY | {"use_percentiles": False},
    "encodings": GEOMETRY | {"apply_sincos_state_encoding": True, "clip_outliers": False, "use_relative_action": False,
                             "formalize_language": False, "keys": {"sin_cos_embedding_keys": ["arm"],
                                                                   "mean_std_embedding_keys": ["gripper"]}},
    "two frames": GEOMETRY | {"video": {"delta_indices": [-2, 0]}},
}


def tiny_checkout(checkout: Path, folder: Path) -> None:
    """A copy of the code with tiny files of Eagle; the language model does not ask for FlashAttention."""
    shutil.copytree(checkout / "gr00t", folder / "gr00t")
    there = folder / "gr00t" / "model" / "modules" / NAME
    own = {f.name: json.loads(f.read_text(encoding="utf-8")) for f in there.glob("*config.json")}
    for name in ("added_tokens.json", "merges.txt", "vocab.json", "special_tokens_map.json"):
        (there / name).unlink()
    tiny.eagle(there)
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        content = own[name] | json.loads((there / name).read_text(encoding="utf-8"))
        if name == "config.json":  # the tower's own code takes its attention from modeling_eagle3_vl.py
            content["_attn_implementation"] = "eager"
            for part in ("vision_config", "text_config"):
                content[part] = own[name][part] | content[part]
        (there / name).write_text(json.dumps(content), encoding="utf-8")
    file = there / "modeling_eagle3_vl.py"
    code = file.read_text(encoding="utf-8")
    file.write_text(code.replace("text_config._attn_implementation == 'flash_attention_2'",
                                 "text_config._attn_implementation == 'eager'"), encoding="utf-8")


def each_image_for_itself(q, k, v, cu_seqlens_q, softmax_scale, **rest):
    """flash_attn_varlen_func: [tokens, heads, d], attention within runs of tokens."""
    out = torch.empty_like(q)
    for first, end in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        part = [t[first:end].transpose(0, 1)[None] for t in (q, k, v)]
        out[first:end] = torch.nn.functional.scaled_dot_product_attention(*part, scale=softmax_scale)[0].transpose(0, 1)
    return out


def attending(model: torch.nn.Module) -> torch.nn.Module:
    tower = sys.modules[type(model.backbone.model.vision_model).__module__]
    tower._flash_supports_window_size = False
    tower.flash_attn_varlen_func = each_image_for_itself
    return model


def record(folder: Path) -> dict:
    from gr00t.configs.model.gr00t_n1d6 import Gr00tN1d6Config
    from gr00t.data.embodiment_tags import EmbodimentTag
    from gr00t.model.gr00t_n1d6.gr00t_n1d6 import Gr00tN1d6
    from gr00t.model.gr00t_n1d6.processing_gr00t_n1d6 import Gr00tN1d6Processor
    from gr00t.policy.gr00t_policy import Gr00tPolicy
    from transformers.modeling_utils import no_init_weights

    with no_init_weights():  # the tower's initialisation names a class that is not there
        model = attending(Gr00tN1d6(Gr00tN1d6Config(**tiny.sizes(4))))
    draw_weights(model)
    out: dict = {"cases": {}}
    for case, settings in CASES.items():
        saved = folder / case
        model.save_pretrained(saved)
        out["weights"] = isaac.saved_weights(saved)
        out["config"] = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        tiny.robot_files(saved, TAG, **settings)
        Gr00tN1d6Processor.from_pretrained(saved).save_pretrained(saved)
        policy = Gr00tPolicy(EmbodimentTag(TAG), str(saved), device="cpu")
        attending(policy.model)
        files = {n: json.loads((saved / n).read_text(encoding="utf-8"))
                 for n in ("processor_config.json", "embodiment_id.json")}
        frames = len(policy.modality_configs["video"].delta_indices)
        out["cases"][case] = {**files, "actions": [isaac.asked(policy, seed, tiny.CAMERAS, STATE, frames)
                                                   for seed in range(isaac.SEEDS)]}
    return out


def real(folder: Path, checkout: Path) -> dict:
    """Names and shapes of the released size, without weights."""
    from gr00t.configs.model.gr00t_n1d6 import Gr00tN1d6Config
    from gr00t.model.gr00t_n1d6.gr00t_n1d6 import Gr00tN1d6
    from transformers.modeling_utils import no_init_weights

    sizes = Path("gr00t", "model", "modules", NAME, "config.json")
    content = json.loads((checkout / sizes).read_text(encoding="utf-8"))
    (folder / sizes).write_text(json.dumps(content | {"_attn_implementation": "eager"}), encoding="utf-8")
    torch.distributions.Distribution.set_default_validate_args(False)  # which reads numbers of the meta device
    settings = Gr00tN1d6Config(max_state_dim=128, max_action_dim=128, action_horizon=50)
    with torch.device("meta"), no_init_weights():
        model = Gr00tN1d6(settings)
    settings.save_pretrained(folder / "real")
    return {"config": json.loads((folder / "real" / "config.json").read_text(encoding="utf-8")),
            "eagle": {k: content[k] for k in ("model_type", "vision_config", "text_config", "select_layer",
                                              "image_token_index", "downsample_ratio", "mlp_connector_layers")},
            "weights": isaac.weights_of(model)}


def main(checkout: str, packages: str) -> None:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    sys.path.insert(0, packages)
    declare_torchvision_ops()
    with isaac.in_fp32() as folder, torch.inference_mode():
        os.environ["HF_MODULES_CACHE"] = str(folder / "modules")
        from transformers import AutoModel, AutoProcessor  # noqa: F401 (before the stubs)

        with stubbed(NOT_CALLED):
            tiny_checkout(Path(checkout), folder)
            sys.path.insert(0, str(folder))
            found = record(folder) | {"real": real(folder, Path(checkout))}
    RECORDED.write_text(isaac.lines(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
