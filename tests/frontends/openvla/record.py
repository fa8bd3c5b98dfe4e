"""Runs the authors' code on the policies of cases.py and records what it saves and what it answers, in recorded.json:

    PY=.venv/environments/gauntlet-prismatic/bin/python  # python -m benchmarks.gauntlet.environments creates it
    for CASE in openvla openvla-siglip; do $PY -m tests.frontends.openvla.record $CASE OPENVLA; done
    for CASE in oft-tokens oft-regression oft-film oft-diffusion; do
      $PY -m tests.frontends.openvla.record $CASE OPENVLA_OFT TRANSFORMERS_OPENVLA_OFT; done
    $PY -m tests.frontends.openvla.record real-size OPENVLA_OFT TRANSFORMERS_OPENVLA_OFT

OPENVLA, OPENVLA_OFT, TRANSFORMERS_OPENVLA_OFT: checkouts of openvla/openvla c8f03f4, moojink/openvla-oft 213c5ff and
moojink/transformers-openvla-oft bc339d9 (whose attention is bidirectional). The names and shapes of the real size are
those of the same code on the meta device.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.gauntlet.importing import importable, small_timm, without_init
from tests.frontends.openvla.cases import (
    CASES,
    EMPTY,
    SEEDS,
    SIDE,
    TEXT,
    TOWER,
    WIDTH,
    observation,
    platform_of,
    statistics,
    tokenizer,
    weights,
)
from tests.samples.recorded_weights import folded

RECORDED = Path(__file__).with_name("recorded.json")
KEPT = ("config.json", "preprocessor_config.json")


def hf_of(case: str, checkouts: list[Path]):
    """(modeling, configuration, processing): the authors' modules."""
    if CASES.get(case, {}).get("head", "oft") is None:
        with importable(checkouts[0] / "prismatic" / "extern"):
            from hf import configuration_prismatic, modeling_prismatic, processing_prismatic
        return modeling_prismatic, configuration_prismatic, processing_prismatic
    from transformers.models import llama

    llama.__path__.insert(0, str(checkouts[1] / "src" / "transformers" / "models" / "llama"))
    # a word of the command line chooses the platform's constants
    sys.argv = ["evaluate", CASES.get(case, {}).get("platform", "libero")]
    without_init(checkouts[0], "prismatic", "prismatic.models", "prismatic.training", "prismatic.vla")
    with importable(checkouts[0]):
        from prismatic.extern.hf import configuration_prismatic, modeling_prismatic, processing_prismatic
        from prismatic.models import action_heads, film_vit_wrapper, projectors  # noqa: F401
    return modeling_prismatic, configuration_prismatic, processing_prismatic


def config_of(configuration, case: dict, norm_stats: dict, text: dict):
    backbone = case.get("backbone", "dinosiglip-vit-so-224px")
    return configuration.OpenVLAConfig(
        norm_stats=norm_stats, vision_backbone_id=backbone, llm_backbone_id="llama2-7b-pure",
        arch_specifier="no-align+fused-gelu-mlp" if "dino" in backbone else "no-align+gelu-mlp",
        image_resize_strategy="resize-naive", text_config=text, attn_implementation="sdpa")


def with_weights(module: torch.nn.Module, case: str, file: str) -> torch.nn.Module:
    """Filled from the names."""
    module.load_state_dict(weights(case, file, {n: tuple(t.shape) for n, t in module.state_dict().items()}))
    return module.eval()


class Lora(torch.nn.Module):
    """What PEFT puts in the place of a linear layer, with its names."""

    def __init__(self, base: torch.nn.Linear, rank: int):
        super().__init__()
        self.base_layer, self.scaling = base, min(rank, 16) / rank
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(rank, base.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x)) * self.scaling


def adapted(module: torch.nn.Module, rank: int) -> None:
    """PEFT's "all-linear", in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, Lora(child, rank))
        else:
            adapted(child, rank)


def parts_of(case: str, model, width: int) -> dict[str, torch.nn.Module]:
    """The heads by the names of their files; FiLM is put into the model."""
    about = CASES[case]
    if about["head"] is None:
        return {}
    from prismatic.models import action_heads, film_vit_wrapper, projectors

    size, found = platform_of(case), {}
    if about["head"] == "regression":
        found["action_head"] = action_heads.L1RegressionActionHead(width, width, size["actions"])
    if about["head"] == "diffusion":
        found["action_head"] = action_heads.DiffusionActionHead(width, width, size["actions"], about["trained_steps"])
        found["noisy_action_projector"] = projectors.NoisyActionProjector(width)
    if about.get("state"):
        found["proprio_projector"] = projectors.ProprioProjector(width, size["state"])
    if about.get("film"):
        adapted(model.vision_backbone, about["rank"])
        model.vision_backbone = film_vit_wrapper.FiLMedPrismaticVisionBackbone(model.vision_backbone, width)
        found["vision_backbone"] = model.vision_backbone
    return found


def processor_of(processing, backbone: str):
    two = "dino" in backbone
    means = [(0.484375, 0.455078125, 0.40625), (0.5, 0.5, 0.5)] if two else [(0.5, 0.5, 0.5)]
    stds = [(0.228515625, 0.2236328125, 0.224609375), (0.5, 0.5, 0.5)] if two else [(0.5, 0.5, 0.5)]
    return processing.PrismaticImageProcessor(two, "resize-naive", [(3, SIDE, SIDE)] * len(means),
                                              ["bicubic"] * len(means), means, stds)


def prompt_ids(instruction: str) -> torch.Tensor:
    from tokenizers import Tokenizer

    prompt = f"In: What action should the robot take to {instruction.lower()}?\nOut:"
    return torch.tensor([Tokenizer.from_str(tokenizer()).encode(prompt).ids])


def answer(case: str, modeling, model, parts: dict, processor, seed: int) -> np.ndarray:
    """[H,D], by the authors' predict_action and the preparation of their evaluation."""
    from PIL import Image

    about, seen = CASES[case], observation(case, seed)
    ids = prompt_ids(seen["instruction"])
    pixels = torch.cat([processor(Image.fromarray(f), return_tensors="pt")["pixel_values"] for f in seen["frames"]], 1)
    key = platform_of(case)["keys"][-1]
    if about["head"] is None:
        ids = torch.cat([ids, torch.tensor([[EMPTY]])], 1)  # else the mask, given by the caller, is one too short
        return model.predict_action(ids, key, pixel_values=pixels, do_sample=False,
                                    attention_mask=torch.ones_like(ids))[None]
    state = None
    if about.get("state"):
        state = normalised_state(model.norm_stats[key]["proprio"], seen["state"])
    model.vision_backbone.set_num_images_in_input(about["images"])
    drawn = torch.from_numpy(seen["noise"])
    with mock.patch.object(torch, "randn", lambda *args, **kwargs: drawn):
        actions, _ = model.predict_action(
            ids, key, pixel_values=pixels, attention_mask=torch.ones_like(ids), proprio=state,
            proprio_projector=parts.get("proprio_projector"), action_head=parts.get("action_head"),
            noisy_action_projector=parts.get("noisy_action_projector"), use_film=bool(about.get("film")))
    return actions


def normalised_state(statistics_: dict, state: np.ndarray) -> np.ndarray:
    """experiments/robot/openvla_utils.py: normalize_proprio, whose module imports TensorFlow."""
    from prismatic.vla.constants import ACTION_PROPRIO_NORMALIZATION_TYPE

    low, high = (np.array(statistics_[k]) for k in (("min", "max") if ACTION_PROPRIO_NORMALIZATION_TYPE == "bounds"
                                                    else ("q01", "q99")))
    return np.clip(2 * (state - low) / (high - low + 1e-8) - 1, -1.0, 1.0)


@torch.no_grad()
def record(case: str, checkouts: list[Path]) -> dict:
    about = CASES[case]
    modeling, configuration, processing = hf_of(case, checkouts)
    with small_timm(**TOWER):
        model = modeling.OpenVLAForActionPrediction(config_of(configuration, about, statistics(case), TEXT))
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    with_weights(model, case, "model")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="6MB")
        processor = processor_of(processing, about.get("backbone", "dinosiglip"))
        processor.save_pretrained(folder)
        files = {name: json.loads((Path(folder) / name).read_text(encoding="utf-8")) for name in KEPT}
        index = json.loads((Path(folder) / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files["config.json"]["norm_stats"] = {}  # as in dataset_statistics.json
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    assert set(shapes) == set(index["weight_map"])
    parts = parts_of(case, model, WIDTH)
    for name, part in parts.items():
        with_weights(part, case, name)
        if hasattr(part, "noise_scheduler"):
            part.noise_scheduler.set_timesteps(about["steps"])
    model.eval()
    return {"files": files, "weights": folded(shapes),
            "parts": {n: folded({k: tuple(t.shape) for k, t in p.state_dict().items()}) for n, p in parts.items()},
            "ids": [prompt_ids(observation(case, s)["instruction"])[0].tolist() for s in SEEDS],
            "actions": [np.asarray(answer(case, modeling, model, parts, processor, s), np.float64).round(7).tolist()
                        for s in SEEDS]}


def real_size(checkouts: list[Path]) -> dict:
    """Names and shapes of openvla-7b and of OpenVLA-OFT's files, for every platform."""
    modeling, configuration, _ = hf_of("real-size", checkouts)
    with torch.device("meta"), mock.patch("timm.create_model", _without_weights()), _cheap_init():
        model = modeling.OpenVLAForActionPrediction(config_of(configuration, {}, {}, {"vocab_size": 32064}))
        found = {"openvla-7b": folded({n: tuple(t.shape) for n, t in model.state_dict().items()})}
        from prismatic.models import action_heads

        for case in ("oft-regression", "oft-film", "oft-diffusion"):
            # a constant that follows from the command line
            with mock.patch.object(action_heads, "ACTION_DIM", platform_of(case)["actions"]):
                parts = parts_of(case, model, 4096)
            for name, part in parts.items():
                found[f"{case}: {name}"] = folded({n: tuple(t.shape) for n, t in part.state_dict().items()})
    return found


def _without_weights():
    import timm

    original = timm.create_model
    return lambda name, pretrained=False, **kwargs: original(name, pretrained=False, **kwargs)


@contextlib.contextmanager
def _cheap_init():
    """timm's and transformers' initialisation draws numbers, which the meta device has none of."""
    from timm.models import vision_transformer
    from transformers import PreTrainedModel

    linspace = torch.linspace  # the rates of stochastic depth, read as numbers
    with mock.patch.object(vision_transformer.VisionTransformer, "init_weights", lambda self, mode="": None), \
            mock.patch.object(torch, "linspace", lambda *args: linspace(*args, device="cpu")), \
            mock.patch.object(PreTrainedModel, "post_init", lambda self: None):
        yield


if __name__ == "__main__":
    name, given = sys.argv[1], [Path(a).resolve() for a in sys.argv[2:]]
    whole = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.is_file() else {}
    whole[name] = real_size(given) if name == "real-size" else record(name, given)
    RECORDED.write_text(json.dumps(whole, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{name}: {RECORDED.stat().st_size} bytes")
