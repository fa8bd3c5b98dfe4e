"""Records what NVIDIA's own code does with GR00T N1.5 checkpoints that it saved: isaac_n15.json.

python -m tests.environments.lerobot.record_n15 CHECKOUT PACKAGES

CHECKOUT: of NVIDIA/Isaac-GR00T, branch n1.5-release (recorded: 4af2b62); its copy of Eagle's files is replaced by tiny
ones in a temporary copy. PACKAGES: a folder with what it imports and inference calls, by `pip install --no-deps
--target PACKAGES transformers==4.51.3 tokenizers==0.21.4 albumentations==1.4.18 albucore==0.0.17 numpydantic dm-tree
scipy opencv-python-headless==4.11.0.86 pydantic pydantic_core annotated-types typing-inspection eval_type_backport
tyro docstring_parser typeguard`. Run in the environment lerobot. Its policy computes in bf16; here all is in fp32.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tests.environments import isaac
from tests.environments.lerobot.checkpoints import eagle, groot_base
from tests.samples.weights_by_name import draw_weights
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed

RECORDED = Path(__file__).with_name("isaac_n15.json")
EAGLE = "lerobot/eagle2hg-processor-groot-n1p5"  # where a reader looks for Eagle's files
EMBODIMENTS = 32
NOT_CALLED = ("accelerate", "av", "decord", "fastparquet", "flash_attn", "gymnasium", "h5py", "hydra", "imageio",
              "kornia", "matplotlib", "omegaconf", "pandas", "peft", "pyarrow", "pytorch3d", "ray", "skimage",
              "sklearn", "tianshou", "timm", "torchcodec", "wandb", "zmq")
CAMERAS = {"wrist": (60, 80), "base": (60, 80)}  # one size for all, as its crop asks
STATE, ACTION = {"arm": 5, "joints": 2, "gripper": 1}, {"arm": 5, "joints": 2, "gripper": 1}
TAG = "gr1"
CASES = {
    "min_max": {"state": dict.fromkeys(STATE, "min_max"), "action": dict.fromkeys(ACTION, "min_max")},
    "mixed": {"state": {"arm": "q99", "joints": "sin_cos", "gripper": "mean_std"},
              "action": {"arm": "mean_std", "joints": "q99", "gripper": "binary"}},
}


def statistics(size: int, seed: int) -> dict[str, list[float]]:
    draw = np.random.default_rng(seed)
    centre, width = draw.standard_normal(size), 0.5 + draw.random(size)
    found = {"max": centre + 2 * width, "min": centre - 2 * width, "mean": centre, "std": width, "q01": centre - width,
             "q99": centre + width}
    return {k: [round(float(x), 5) for x in v] for k, v in found.items()}


def metadata() -> dict:
    """As its training writes it, of a dataset."""
    groups = {"state": STATE, "action": ACTION}
    return {TAG: {
        "statistics": {kind: {n: statistics(size, 10 * i + j) for j, (n, size) in enumerate(of.items())}
                       for i, (kind, of) in enumerate(groups.items())},
        "modalities": {"video": {c: {"resolution": [w, h], "channels": 3, "fps": 20.0}
                                 for c, (h, w) in CAMERAS.items()},
                       **{kind: {n: {"absolute": True, "rotation_type": None, "shape": [size], "continuous": True}
                                 for n, size in of.items()} for kind, of in groups.items()}},
        "embodiment_tag": TAG}}


def modality(case: str, side: int = 56) -> dict:
    """What a reader is told, of what is in NVIDIA's code (its DataConfig) and not in its files."""
    return {"video": {"keys": list(CAMERAS), "crop": 0.95, "size": [side, side]},
            "state": {"keys": list(STATE), "modes": CASES[case]["state"]},
            "action": {"keys": list(ACTION), "modes": CASES[case]["action"]}, "formalize_language": False}


def observation(seed: int, areas: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Frames of noise, or of areas of one grey each."""
    return isaac.observation(seed, CAMERAS, sum(STATE.values()), isaac.GREY if areas else 1)


def tiny_checkout(checkout: Path, folder: Path) -> None:
    """A copy of the code with tiny files of Eagle, and without FlashAttention."""
    shutil.copytree(checkout / "gr00t", folder / "gr00t")
    there, made = folder / "gr00t" / "model" / "backbone" / "eagle2_hg_model", Path(eagle(folder / EAGLE, False))
    for name in ("added_tokens.json", "merges.txt", "vocab.json", "special_tokens_map.json", "tokenizer_config.json"):
        (there / name).unlink()
    for file in made.iterdir():
        content = file.read_text(encoding="utf-8")
        if (there / file.name).is_file() and file.name != "chat_template.json":
            content = json.dumps(json.loads((there / file.name).read_text(encoding="utf-8")) | json.loads(content))
        (there / file.name).write_text(content, encoding="utf-8")
    for file in (there / "modeling_eagle2_5_vl.py", there / "config.json"):
        file.write_text(file.read_text(encoding="utf-8").replace("flash_attention_2", "eager"), encoding="utf-8")


def transforms(case: str):
    from gr00t.data.transform.base import ComposedModalityTransform
    from gr00t.data.transform.concat import ConcatTransform
    from gr00t.data.transform.state_action import (
        StateActionSinCosTransform,
        StateActionToTensor,
        StateActionTransform,
    )
    from gr00t.data.transform.video import VideoCrop, VideoResize, VideoToNumpy, VideoToTensor
    from gr00t.model.transforms import GR00TTransform

    keys = {kind: [f"{kind}.{n}" for n in names] for kind, names in
            (("video", CAMERAS), ("state", STATE), ("action", ACTION))}
    modes = {f"{kind}.{n}": m for kind in ("state", "action") for n, m in CASES[case][kind].items()}
    waves = [k for k, m in modes.items() if m == "sin_cos"]
    normal = {kind: [k for k in keys[kind] if k not in waves] for kind in ("state", "action")}
    steps = [VideoToTensor(apply_to=keys["video"]), VideoCrop(apply_to=keys["video"], scale=0.95),
             VideoResize(apply_to=keys["video"], height=56, width=56, interpolation="linear"),
             VideoToNumpy(apply_to=keys["video"])]
    for kind in ("state", "action"):
        steps += [StateActionToTensor(apply_to=keys[kind]),
                  StateActionTransform(apply_to=normal[kind], normalization_modes={k: modes[k] for k in normal[kind]})]
    steps += [StateActionSinCosTransform(apply_to=waves)] if waves else []
    steps += [ConcatTransform(video_concat_order=keys["video"], state_concat_order=keys["state"],
                              action_concat_order=keys["action"]),
              GR00TTransform(state_horizon=1, action_horizon=16, max_state_dim=64, max_action_dim=32)]
    return ComposedModalityTransform(transforms=steps), keys


def asked(policy, seed: int, areas: bool = False) -> list[list[float]]:
    frames, numbers = observation(seed, areas)
    state = dict(zip(STATE, np.split(numbers, np.cumsum(list(STATE.values()))[:-1]), strict=True))
    torch.manual_seed(1)  # the noise is the first draw
    actions = policy.get_action({**{f"video.{n}": f[None] for n, f in frames.items()},
                                 **{f"state.{n}": s[None] for n, s in state.items()},
                                 "annotation.human.action.task_description": [isaac.INSTRUCTION]})
    chunk = np.concatenate([np.asarray(actions[f"action.{n}"]).reshape(16, -1) for n in ACTION], -1)
    return isaac.recorded_chunk(chunk)


def record(folder: Path) -> dict:
    from gr00t.data.dataset import ModalityConfig
    from gr00t.model.gr00t_n1 import GR00T_N1_5, GR00T_N1_5_Config
    from gr00t.model.policy import Gr00tPolicy

    base = json.loads((Path(groot_base(folder / "base", False, EMBODIMENTS)) / "config.json").read_text("utf-8"))
    base["backbone_cfg"]["use_flash_attention"] = False
    model = GR00T_N1_5(GR00T_N1_5_Config(**base), local_model_path="")
    draw_weights(model)
    saved = folder / "checkpoint"
    model.save_pretrained(saved)
    (saved / "experiment_cfg").mkdir()
    (saved / "experiment_cfg" / "metadata.json").write_text(json.dumps(metadata()), encoding="utf-8")
    out: dict = {"config": json.loads((saved / "config.json").read_text(encoding="utf-8"))}
    out["weights"] = isaac.saved_weights(saved)
    out["actions"], out["areas"] = {}, {}
    for case in CASES:
        transform, keys = transforms(case)
        configs = {kind: ModalityConfig(delta_indices=list(range(16)) if kind == "action" else [0],
                                        modality_keys=names) for kind, names in keys.items()}
        policy = Gr00tPolicy(str(saved), TAG, configs, transform, device="cpu")
        out["actions"][case] = [asked(policy, seed) for seed in range(isaac.SEEDS)]
        out["areas"][case] = [asked(policy, seed, areas=True) for seed in range(isaac.SEEDS)]
    return out


def real(folder: Path, checkout: Path) -> dict:
    """Names and shapes of the released size, without weights."""
    from gr00t.model.gr00t_n1 import GR00T_N1_5, GR00T_N1_5_Config

    sizes = Path("gr00t", "model", "backbone", "eagle2_hg_model", "config.json")
    (folder / sizes).write_text((checkout / sizes).read_text("utf-8").replace("flash_attention_2", "eager"), "utf-8")
    base = json.loads((Path(groot_base(folder / "real", True, EMBODIMENTS)) / "config.json").read_text("utf-8"))
    torch.distributions.Distribution.set_default_validate_args(False)  # which reads numbers of the meta device
    with torch.device("meta"):
        model = GR00T_N1_5(GR00T_N1_5_Config(**base), local_model_path="")
    return {"config": base, "weights": isaac.weights_of(model)}


def main(checkout: str, packages: str) -> None:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    sys.path.insert(0, packages)
    declare_torchvision_ops()
    from transformers import AutoModel, AutoProcessor  # noqa: F401 (before the stubs)

    with stubbed(NOT_CALLED), isaac.in_fp32() as folder, \
            mock.patch.object(torch.cuda, "get_device_capability", lambda: (8, 0)):
        tiny_checkout(Path(checkout), folder)
        sys.path.insert(0, str(folder))
        found = record(folder) | {"real": real(folder, Path(checkout))}
    RECORDED.write_text(isaac.lines(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
