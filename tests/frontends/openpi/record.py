"""Runs openpi's code on the policies of cases.py and records what it saves and what it answers, in recorded.json:

    PY=.venv/environments/gauntlet/bin/python  # python -m benchmarks.gauntlet.environments creates it
    $PY -m tests.frontends.openpi.record OPENPI

OPENPI: a checkout of Physical-Intelligence/openpi, 15a9616. The network, its transforms and its training
configurations are openpi's; jax, flax and what else inference in PyTorch never calls are stubs. The names and shapes of
the real size are those of the same code on the meta device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
import types
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from benchmarks.gauntlet.importing import fix, importable
from tests.frontends.openpi.cases import (
    ACTIONS,
    CASES,
    SEEDS,
    VISION,
    VOCABULARY,
    is_pi05,
    noise,
    observation,
    statistics,
    tokenizer,
)
from tests.samples.recorded_weights import folded, weight

BROKEN = "paligemma_diffusion_droid"  # gives DroidInputs an argument that it no longer has
RECORDED = Path(__file__).with_name("recorded.json")
STUBS = ("jax", "beartype", "jaxtyping", "augmax", "orbax", "sentencepiece", "etils", "tyro", "optax", "numpydantic",
         "pydantic", "gcsfs", "tqdm_loggable", "lerobot", "rich", "wandb", "dlimp", "tensorflow", "flax",
         "ml_collections", "polars", "treescope", "chex", "openpi.models.utils.fsq_tokenizer",
         "openpi.training.optimizer", "openpi.training.weight_loaders", "openpi.shared.download")


def flax_of_dicts() -> types.ModuleType:
    """flax.traverse_util: the two functions that the transforms call."""
    module = types.ModuleType("flax.traverse_util")

    def flatten_dict(tree: dict, sep: str) -> dict:
        found = {}
        for key, value in tree.items():
            found |= {f"{key}{sep}{k}": v for k, v in flatten_dict(value, sep).items()} if isinstance(value, dict) \
                else {key: value}
        return found

    def unflatten_dict(flat: dict, sep: str) -> dict:
        found: dict = {}
        for key, value in flat.items():
            *folders, name = key.split(sep)
            inner = found
            for folder in folders:
                inner = inner.setdefault(folder, {})
            inner[name] = value
        return found

    module.flatten_dict, module.unflatten_dict = flatten_dict, unflatten_dict
    return module


@contextlib.contextmanager
def importing(checkout: Path):
    source = checkout / "src"
    with importable(source, checkout / "packages" / "openpi-client" / "src", stubs=STUBS):
        from transformers import models

        for name in ("gemma", "paligemma", "siglip"):  # as openpi copies its files over transformers'
            replaced = source / "openpi" / "models_pytorch" / "transformers_replace" / "models" / name
            getattr(models, name).__path__.insert(0, str(replaced))
        import flax.nnx

        flax.traverse_util = sys.modules["flax.traverse_util"] = flax_of_dicts()
        flax.nnx.Module = type("Module", (), {})  # a base beside an abstract one
        yield


class Encoder:
    """SentencePiece's interface on a tokenizer.json."""

    def __init__(self):
        from tokenizers import Tokenizer

        self.own = Tokenizer.from_str(tokenizer())

    def encode(self, text: str, add_bos: bool = False) -> list[int]:
        return self.own.encode(text, add_special_tokens=add_bos).ids


def configurations() -> dict[str, dict]:
    """{name: facts} of openpi's training configurations of pi0 and pi0.5, from their own classes."""
    from openpi.models.pi0_config import Pi0Config
    from openpi.training import config

    found = {}
    for one in config._CONFIGS:
        if isinstance(one.model, Pi0Config) and not isinstance(one.data, config.FakeDataConfig) and one.name != BROKEN:
            found[one.name] = {"model": {f: getattr(one.model, f) for f in (
                "pi05", "action_horizon", "max_token_len", "discrete_state_input", "action_dim", "paligemma_variant")}}
            found[one.name] |= {"asset": one.data.assets.asset_id or one.data.repo_id, "transforms": transforms_of(one)}
    return found


def created(one):
    """The data configuration, without statistics and with the small tokenizer."""
    from openpi.models.tokenizer import PaligemmaTokenizer
    from openpi.training.config import DataConfig

    with mock.patch.object(type(one.data), "create_base_config", lambda self, *args: DataConfig()), mock.patch.object(
            PaligemmaTokenizer, "__init__", lambda self, length: self.__dict__.update(
                _max_len=length, _tokenizer=Encoder())):
        return one.data.create(Path("assets"), one.model)


def transforms_of(one) -> list[str]:
    """The output transforms, as text; of inputs the same robot's."""
    data = created(one)
    return [f"{type(t).__name__}({', '.join(f'{k}={v}' for k, v in dataclasses.asdict(t).items())})"
            for t in data.data_transforms.outputs]


def small_model(case: str, horizon: int):
    from openpi.models_pytorch import gemma_pytorch
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch
    from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    gemma_pytorch.CONFIG_MAPPING = {"gemma": GemmaConfig, "paligemma": lambda: PaliGemmaConfig(
        text_config=GemmaConfig(), vision_config=SiglipVisionConfig(**VISION, vision_use_head=False))}
    return PI0Pytorch(SimpleNamespace(
        pi05=is_pi05(case), paligemma_variant="dummy", action_expert_variant="dummy", dtype="float32",
        action_dim=ACTIONS, action_horizon=horizon, pytorch_compile_mode=None))


def saved(model, folder: Path) -> dict[str, tuple[int, ...]]:
    """Gives the model its weights, saves it as openpi does, and returns names and shapes in the file."""
    from safetensors import safe_open
    from safetensors.torch import save_model

    file = str(folder / "model.safetensors")
    save_model(model, file)
    with safe_open(file, "pt") as opened:
        shapes = {n: tuple(opened.get_slice(n).get_shape()) for n in opened.keys()}  # noqa: SIM118
    places = {t.data_ptr(): n for n, t in model.state_dict().items() if n in shapes}
    model.load_state_dict({n: weight(places.get(t.data_ptr(), n), tuple(t.shape))
                           for n, t in model.state_dict().items()})
    return shapes


def pipeline(one, norm_stats: dict):
    """(input transforms, output transforms) of a policy, as create_trained_policy composes them."""
    from openpi import transforms

    stats = {name: SimpleNamespace(**{k: np.array(v) for k, v in row.items()}) for name, row in norm_stats.items()}
    data = created(one)
    quantiles = str(one.model.model_type) != "ModelType.PI0"  # DataConfigFactory.create_base_config
    return (transforms.compose([*data.data_transforms.inputs, transforms.Normalize(stats, quantiles),
                                *data.model_transforms.inputs]),
            transforms.compose([*data.model_transforms.outputs, transforms.Unnormalize(stats, quantiles),
                                *data.data_transforms.outputs]))


def given(case: str, seed: int) -> dict:
    """The observation as a client of that robot sends it."""
    seen, robot = observation(case, seed), CASES[case]["robot"]
    state = seen["state"].astype(np.float64)
    if robot == "aloha":
        return {"images": {c: np.moveaxis(f, -1, 0) for c, f in seen["frames"].items()}, "state": state,
                "prompt": seen["instruction"]}
    frames = {f"observation/{c}": f for c, f in seen["frames"].items()}
    parts = {"observation/joint_position": state[:7], "observation/gripper_position": state[7:]} \
        if robot == "droid" else {"observation/state": state}
    return frames | parts | {"prompt": seen["instruction"]}


@torch.no_grad()
def record(case: str) -> dict:
    from openpi.training.config import get_config

    one = get_config(case)
    model = small_model(case, one.model.action_horizon)
    with tempfile.TemporaryDirectory() as folder:
        shapes = saved(model, Path(folder))
    model.eval()
    actions, prompts = [], []
    for seed in SEEDS:
        before, after = pipeline(one, statistics(case)["norm_stats"])
        inputs = before(given(case, seed))
        prompts.append(inputs["tokenized_prompt"][inputs["tokenized_prompt_mask"]].tolist())
        batch = {k: torch.from_numpy(np.array(inputs[k]))[None] for k in ("state", "tokenized_prompt",
                                                                          "tokenized_prompt_mask")}
        images = {k: torch.from_numpy(v)[None].to(torch.float32).permute(0, 3, 1, 2) / 255.0 * 2.0 - 1.0
                  for k, v in inputs["image"].items()}  # Observation.from_dict
        chunk = model.sample_actions("cpu", SimpleNamespace(
            images=images, image_masks={k: torch.tensor([bool(v)]) for k, v in inputs["image_mask"].items()},
            state=batch["state"], tokenized_prompt=batch["tokenized_prompt"].long(),
            tokenized_prompt_mask=batch["tokenized_prompt_mask"], token_ar_mask=None, token_loss_mask=None),
            noise=torch.from_numpy(noise(one.model.action_horizon, seed)))
        outputs = after({"state": batch["state"][0].numpy(), "actions": chunk[0].numpy()})
        actions.append(np.asarray(outputs["actions"], np.float64).round(7).tolist())
    return {"weights": folded(shapes), "horizon": one.model.action_horizon, "ids": prompts, "actions": actions}


def real_size() -> dict:
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch
    from transformers import PreTrainedModel

    found = {}
    for kind in ("pi0", "pi05"):
        with torch.device("meta"), mock.patch.object(PreTrainedModel, "post_init", lambda self: None):
            model = PI0Pytorch(SimpleNamespace(
                pi05=kind == "pi05", paligemma_variant="gemma_2b", action_expert_variant="gemma_300m",
                dtype="bfloat16", action_dim=32, action_horizon=50, pytorch_compile_mode=None))
        names = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        # post_init would have tied it, and save_model keeps one name
        del names["paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"]
        found[kind] = folded(names)
    return found


def main(checkout: Path) -> None:
    with importing(checkout):
        whole = {"configurations": configurations(), "real-size": real_size()}
        from transformers import GemmaConfig, SiglipVisionConfig

        fix(GemmaConfig, vocab_size=VOCABULARY)
        fix(SiglipVisionConfig, projection_dim=64, intermediate_size=128)
        whole |= {case: record(case) for case in CASES}
    RECORDED.write_text(json.dumps(whole, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{RECORDED.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
