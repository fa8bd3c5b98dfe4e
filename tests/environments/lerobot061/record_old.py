"""Writes old_checkpoints.json: what LeRobot 0.3.3 stores of its policies, and the actions that it computes.

    python -m tests.environments.lerobot061.record_old [FILE]

Creates the environment of LeRobot 0.3.3 once, beside those of the frontends, and runs itself in it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from tests.environments.lerobot.checkpoints import backbone, dataset_statistics, trained_tokenizer
from tests.environments.lerobot.parity import INSTRUCTION, observation
from tests.environments.lerobot061.earlier import drawn
from tests.environments.lerobot061.old_weights import NOISE, rule_of, weight
from vlacompile.frontends.environments import Environment
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed
from vlacompile.policy.drawn_from import drawn_from

ENVIRONMENT = Environment("lerobot033", "lerobot", "0.3.3", "LeRobot 0.3.3 on transformers 4.53", (
    "torchvision==0.28.0", "lerobot==0.3.3", "draccus==0.10.0", "mergedeep==1.3.4", "mypy_extensions==1.2.0",
    "pyyaml-include==1.4.1", "PyYAML==6.0.3", "toml==0.10.2", "typing-inspect==0.9.0", "huggingface-hub==0.35.3",
    "requests==2.32.5", "urllib3==2.5.0", "certifi==2025.10.5", "charset-normalizer==3.4.4", "idna==3.11",
    "safetensors==0.8.0", "einops==0.8.2", "packaging==25.0", "transformers==4.53.3", "tokenizers==0.21.4",
    "regex==2025.11.3", "diffusers==0.35.2", "importlib_metadata==8.7.0", "zipp==3.23.0", "num2words==0.5.14",
    "docopt==0.6.2", "pillow==12.0.0", "tqdm==4.67.1"))
STUBS = ("accelerate", "av", "cmake", "cv2", "datasets", "deepdiff", "flask", "gymnasium", "imageio", "jsonlines",
         "pandas", "peft", "pyarrow", "pynput", "pytest", "qwen_vl_utils", "rerun", "serial", "termcolor",
         "torchcodec", "torchdiffeq", "wandb", "zarr")
ROOT, FILE = Path(__file__).parents[3], Path(__file__).with_name("old_checkpoints.json")
SEEDS, EVERY = range(2), {"pi0": 7}  # of a chunk's steps
CAMERAS = {"smolvla": {"camera1": (3, 80, 96), "camera2": (3, 96, 96)}, "vqbet": {"top": (3, 64, 64)},
           "pi0": {"base": (3, 80, 96), "left": (3, 64, 64), "right": (3, 48, 48)},
           "act": {"top": (3, 96, 64), "wrist": (3, 64, 80)}, "diffusion": {"top": (3, 64, 72), "wrist": (3, 64, 72)}}
SETTINGS = {
    "smolvla": {"load_vlm_weights": False, "num_vlm_layers": 4, "resize_imgs_with_padding": (64, 64), "chunk_size": 8,
                "n_action_steps": 4, "num_steps": 2},
    "vqbet": {"crop_shape": (56, 56), "gpt_n_layer": 2, "gpt_n_head": 4, "gpt_hidden_dim": 32, "gpt_input_dim": 32,
              "gpt_output_dim": 32, "vqvae_embedding_dim": 32, "vqvae_enc_hidden_dim": 32},
    "pi0": {"resize_imgs_with_padding": (64, 64), "proj_width": 32, "num_steps": 2},
    "act": {"dim_model": 64, "n_heads": 4, "dim_feedforward": 128, "n_encoder_layers": 2, "n_vae_encoder_layers": 1,
            "chunk_size": 16, "n_action_steps": 8},
    "diffusion": {"crop_shape": (56, 64), "down_dims": (32, 64), "diffusion_step_embed_dim": 16,
                  "num_inference_steps": 5}}
CLASSES = {"smolvla": "SmolVLA", "vqbet": "VQBeT", "pi0": "PI0", "act": "ACT", "diffusion": "Diffusion"}


def features(kind: str) -> dict:
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, s) for c, s in CAMERAS[kind].items()}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (6,))
    return {"input_features": inputs, "output_features": {"action": PolicyFeature(FeatureType.ACTION, (6,))},
            "device": "cpu", "push_to_hub": False}


@contextlib.contextmanager
def small_pi0() -> Iterator[None]:
    """Inside, pi0 is tiny, in fp32 and with a tokenizer trained here: sizes, dtype and tokenizer are in its code."""
    import transformers
    from lerobot.policies.pi0 import modeling_pi0, paligemma_with_expert

    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"]), pad_token="<pad>", eos_token="<eos>",
        bos_token="<bos>", unk_token="<unk>")
    whole = paligemma_with_expert.PaliGemmaWithExpertConfig

    def small(**settings):
        made = whole(**settings)
        paligemma = made.paligemma_config
        for text, width in ((paligemma.text_config, 64), (made.gemma_expert_config, 32)):
            text.vocab_size, text.hidden_size, text.intermediate_size = 512, width, 128
            text.num_hidden_layers, text.head_dim = 3, 16
        paligemma._vocab_size = paligemma.vocab_size = 512
        paligemma.image_token_index, paligemma.projection_dim, paligemma.hidden_size = 511, 64, 64
        vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
                  "patch_size": 16, "projection_dim": 64, "image_size": 64}
        for name, value in vision.items():
            setattr(paligemma.vision_config, name, value)
        return made

    with mock.patch.object(modeling_pi0, "PaliGemmaWithExpertConfig", small), \
            mock.patch.object(torch, "bfloat16", torch.float32), \
            mock.patch.object(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: words):
        yield


@contextlib.contextmanager
def without_download(config) -> Iterator[None]:
    """Inside, config asks for no weights of a ResNet; a training that began with them writes that it did."""
    weights = getattr(config, "pretrained_backbone_weights", None)
    with mock.patch.object(config, "pretrained_backbone_weights", None) if weights else contextlib.nullcontext():
        yield


def policy_of(kind: str, folder: Path):
    module = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    policy_class, config_class = (getattr(module, f"{CLASSES[kind]}{part}") for part in ("Policy", "Config"))
    own, extra = features(kind), {"vlm_model_name": backbone(folder / "backbone", False)} if kind == "smolvla" else {}
    config = config_class(**own, **SETTINGS[kind], **extra)
    with without_download(config):
        policy = policy_class(config, dataset_stats=dataset_statistics(own)).eval().float()
    from torchvision.ops.misc import FrozenBatchNorm2d

    measured = {f"{layer}.{n}" for layer, module in policy.named_modules()
                if isinstance(module, FrozenBatchNorm2d) for n, _ in module.named_buffers()}
    with torch.no_grad():
        for name, tensor in [*policy.named_parameters(), *policy.named_buffers()]:
            learned = isinstance(tensor, torch.nn.Parameter) or name in measured or (
                rule_of(tensor) in (None, "grid" if kind == "vqbet" else None))
            if tensor.is_floating_point() and "normalize" not in name and learned:
                tensor.copy_(weight(kind, name, tensor.shape))
    if kind == "vqbet":
        policy.vqbet.action_head.vqvae_model.discretized = torch.tensor(True)
    return policy


def stored(kind: str, policy, folder: Path) -> dict:
    """What is needed to write the files again: names, shapes, ties, and how buffers are filled."""
    from safetensors.torch import load_file

    found: dict = {"config": json.loads((folder / "config.json").read_text(encoding="utf-8")), "weights": {},
                   "tied": {}, "buffers": {}, "statistics": []}
    found["config"] |= {"vlm_model_name": ""} if "vlm_model_name" in found["config"] else {}  # made for each test
    parameters, state = dict(policy.named_parameters()), policy.state_dict()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        if "normalize" in name:
            found["statistics"].append(name)
            continue
        own = next((n for n, p in parameters.items() if p.data_ptr() == state[name].data_ptr()), name)
        rule = None if own in parameters else rule_of(tensor)
        if rule is not None:
            found["buffers"][name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), rule]
            continue
        assert torch.equal(tensor, weight(kind, own, tensor.shape)), name
        found["weights"][name] = list(tensor.shape)
        found["tied"] |= {name: own} if own != name else {}
    return found


def actions(kind: str, policy) -> list:
    """[seed][step][dimension]"""
    found = []
    for seed in SEEDS:
        raw = {n: (torch.from_numpy(a).movedim(-1, 0) / 255 if a.ndim == 3 else torch.from_numpy(a))[None]
               for n, a in observation(policy, seed).items()}
        raw |= {"task": [INSTRUCTION]} if kind in ("smolvla", "pi0") else {}
        given, draws = drawn(NOISE[kind]), contextlib.nullcontext()
        if kind == "vqbet":
            draws = drawn_from(uniform=given.pop("noise.choices"))
        if kind == "diffusion":  # nothing is added after the last step
            draws = drawn_from(normal=torch.cat([given.pop("noise"), given.pop("noise.steps")[:-1]]))
        config = policy.config
        steps = config.action_chunk_size if kind == "vqbet" else config.n_action_steps
        policy.reset()
        with torch.no_grad(), draws:
            chunk = [policy.select_action(dict(raw), **{n: t.clone() for n, t in given.items()})[0].tolist()
                     for _ in range(steps)]
        chunk = [[round(x, 6) for x in step] for step in chunk]
        found.append(chunk[::EVERY.get(kind, 1)])
    return found


def record(kind: str, out: Path) -> None:
    torch.set_num_threads(1)
    declare_torchvision_ops()
    with stubbed(STUBS), tempfile.TemporaryDirectory() as folder:
        import lerobot.policies.pretrained  # noqa: F401  before bfloat16 stands for another type
        import safetensors.torch  # noqa: F401
        import transformers  # noqa: F401

        with small_pi0() if kind == "pi0" else contextlib.nullcontext():
            policy = policy_of(kind, Path(folder))
            policy.save_pretrained(folder)
            found = stored(kind, policy, Path(folder)) | {"actions": actions(kind, policy)}
    out.write_text(json.dumps(found), encoding="utf-8")


def main(file: Path) -> None:
    if not ENVIRONMENT.is_installed():
        ENVIRONMENT.install(lambda phase: print(phase, flush=True))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in CLASSES:
            out = Path(folder) / f"{kind}.json"
            subprocess.run([ENVIRONMENT.python, "-W", "ignore", "-m", __spec__.name, kind, out], check=True, cwd=ROOT,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})
            found[kind] = SimpleNamespace(**json.loads(out.read_text(encoding="utf-8")))
    rows = (f'"{kind}": {{\n  ' + ",\n  ".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in vars(f).items()) + "}"
            for kind, f in found.items())
    file.write_text("{\n" + ",\n".join(rows) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in CLASSES:
        record(sys.argv[1], Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]) if sys.argv[1:] else FILE)
