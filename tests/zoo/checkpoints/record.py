"""Names and shapes of published checkpoints at their real size, from the original's code on the meta device:

    .venv/environments/ENVIRONMENT/bin/python -m tests.zoo.checkpoints.record NAME [CHECKOUT ...]

NAME is a function of this file, which says which environment; those environments are of the gauntlet
(`python -m benchmarks.gauntlet.environments`) and of `vlacompile frontends --install lerobot` and `huggingface`. Octo
and LAPA, which are written in JAX, are listed by tests/zoo/oracles/record_octo.py and record_lapa.py, RT-1, in
TensorFlow, by record_rt_1.py.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
import types
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.gauntlet.importing import importable
from tests.zoo.checkpoints.recorded import write
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed


def shapes(module: torch.nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + n: tuple(t.shape) for n, t in module.state_dict().items()}


def versions(*names: str) -> dict[str, str]:
    return {n: importlib.metadata.version(n) for n in ("torch", *names)}


def act(checkout: Path) -> None:
    """gauntlet; tonyzhaozh/act 742c753"""
    with importable(checkout, checkout / "detr", stubs=("IPython",)), torch.device("meta"):
        import util.misc

        util.misc.is_main_process = lambda: False  # the main process would download pretrained weights
        from detr.models import build_ACT_model

        model = build_ACT_model(SimpleNamespace(
            hidden_dim=512, dim_feedforward=3200, nheads=8, enc_layers=4, dec_layers=7, lr_backbone=1e-5,
            backbone="resnet18", dilation=False, position_embedding="sine", masks=False, dropout=0.1, pre_norm=False,
            num_queries=100, camera_names=[str(i) for i in range(4)]))
    write("act", checkout, {"": shapes(model, "model.")}, **versions("torchvision"))


def gr_1(checkout: Path) -> None:
    """gauntlet-prismatic; bytedance/GR-1 4a2e956, by its logs/configs.json"""
    with importable(checkout, stubs=("ftfy",)):
        import models.vision_transformer as vits
        import transformers.file_utils
        from clip.model import CLIP

        transformers.file_utils.add_code_sample_docstrings = lambda **words: lambda function: function
        from models.gr1 import GR1

        norm = partial(torch.nn.LayerNorm, eps=1e-6)
        mae = vits.VisionTransformer(patch_size=16, num_classes=0, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4,
                                     qkv_bias=True, norm_layer=norm)  # reads numbers of tensors: not on meta
        with torch.device("meta"):
            clip = CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)  # ViT-B/32
            model = GR1(
                clip, mae, state_dim=7, act_dim=7, hidden_size=384, sequence_length=10,
                training_target=["act_pred", "fwd_pred", "fwd_pred_hand"], img_feat_dim=768, patch_feat_dim=768,
                lang_feat_dim=512, use_hand_rgb=True, n_layer=12, n_head=12, n_inner=4 * 384,
                activation_function="relu", n_ctx=1024, n_positions=1024, resid_pdrop=0.1, attn_pdrop=0.1,
                resampler_params={"depth": 3, "dim_head": 128, "heads": 4, "num_latents": 9, "num_media_embeds": 1})
    write("gr_1", checkout, {"": shapes(model)}, **versions("transformers"))


def tinyvla(checkout: Path) -> None:
    """gauntlet; liyaxuanliyaxuan/TinyVLA 94f4418"""
    from tests.zoo.oracles.record_tinyvla import configuration
    from vlacompile.zoo.systems.tinyvla import PYTHIA, Sizes

    found = {}
    with importable(checkout, checkout / "llava-pythia", stubs=("IPython", "scipy")):
        from llava_pythia.model.language_model.pythia import configuration_llava_pythia as configurations
        from llava_pythia.model.language_model.pythia import llava_pythia

        for variant, language in PYTHIA.items():
            with torch.device("meta"):
                found[variant] = shapes(llava_pythia.LlavaPythiaForCausalLM(
                    configuration(configurations, Sizes(language))))
    write("tinyvla", checkout, found, **versions("transformers", "diffusers"))


def smolvla() -> None:
    """lerobot; the configuration is that of HuggingFaceTB/SmolVLM2-500M-Video-Instruct"""
    from tests.zoo.oracles.record_smolvla import network
    from vlacompile.zoo.blocks.smolvla import SMOLVLA

    with _lerobot(), torch.device("meta"):
        model = network(SMOLVLA)
    write("smolvla", None, {"": shapes(model, "model.")}, **versions("lerobot", "transformers"))


def pi0_fast() -> None:
    """lerobot, whose PyTorch code this is: openpi's is JAX"""
    module = types.ModuleType("transformers.models.siglip.check")  # of openpi's patched copy, with these names
    module.check_whether_transformers_replace_is_installed_correctly = lambda: True
    with _lerobot():
        import transformers.models.siglip

        sys.modules[module.__name__] = transformers.models.siglip.check = module
        from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
        from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPytorch

        with torch.device("meta"):
            model = PI0FastPytorch(PI0FastConfig(device="cpu"))
    write("pi0_fast", None, {"": shapes(model, "model.")}, **versions("lerobot", "transformers"))


def groot_n1(checkout: Path) -> None:
    """lerobot; NVIDIA/Isaac-GR00T, branch n1-release, b51a5e8"""
    from tests.zoo.oracles.record_groot import NOT_CALLED, network_of_n1
    from vlacompile.zoo.systems.groot_n1 import REAL

    sys.path.insert(0, str(checkout))
    torch.distributions.Distribution.set_default_validate_args(False)  # reads numbers, which meta has not
    with _lerobot(), stubbed(NOT_CALLED), torch.device("meta"):
        model = network_of_n1(REAL)
    write("groot_n1", checkout, {"": shapes(model)}, **versions("transformers", "diffusers"))


def internvla_m1(checkout: Path, dinov2: Path) -> None:
    """gauntlet; InternRobotics/InternVLA-M1 949223b and facebookresearch/dinov2 b8931f7"""
    from tests.zoo.oracles.record_internvla_m1 import network
    from vlacompile.zoo.systems.internvla_m1 import LARGE

    with torch.device("meta"):
        model = network(checkout, dinov2, LARGE)
    write("internvla_m1", checkout, {"": shapes(model)}, **versions("transformers", "timm"))


def voxposer() -> None:
    """huggingface; the configuration's defaults are those of google/owlvit-base-patch32"""
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    with torch.device("meta"):
        model = OwlViTForObjectDetection(OwlViTConfig())
    write("voxposer", None, {"": shapes(model)}, **versions("transformers"))


@contextlib.contextmanager
def _lerobot():
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    with lerobot_importable():
        yield


if __name__ == "__main__":
    declare_torchvision_ops()
    globals()[sys.argv[1]](*(Path(p) for p in sys.argv[2:]))
