"""Runs the authors' TinyVLA on seeded inputs, prepared and answered as their eval_real_franka.py does:

    git clone https://github.com/liyaxuanliyaxuan/TinyVLA && git -C TinyVLA checkout 94f4418
    .venv/environments/gauntlet/bin/python -m tests.zoo.oracles.record_tinyvla TinyVLA
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gauntlet.importing import importable, without_gpu
from tests.zoo.oracles.recorded import fill, grey_levels, numbers, write
from vlacompile.zoo.systems.tinyvla import ACTION, HORIZON, MEAN, SMALL, STATES, STD, TEMPLATE, Sizes

SIZES, USED, IMAGE = SMALL["s"], 11, -200  # tokens of the instruction; the id that stands for the images
CAMERAS = [grey_levels(i, 1, *SIZES.frame, 3) for i in range(2)]
TEXT = torch.from_numpy(numbers(3, 1, TEMPLATE + USED).numpy().argsort() % SIZES.language.vocabulary)
STATE, NOISE = numbers(4, 1, STATES), numbers(5, 1, HORIZON, ACTION)
MOMENTS = numbers(6, STATES), 1 + numbers(7, STATES).abs()  # of the state
BOUNDS = numbers(8, ACTION), 2 + numbers(9, ACTION).abs()  # of the actions


def configuration(module, sizes: Sizes):
    vision, language = sizes.vision, sizes.language
    config = module.LlavaPythiaConfig(
        vision_config={
            "vision_tower": {
                "hidden_size": vision.width, "intermediate_size": vision.hidden, "num_hidden_layers": vision.depth,
                "num_attention_heads": vision.heads, "image_size": vision.side, "patch_size": vision.patch,
                "vision_model_name_or_path": "clip", "attn_implementation": "eager"},
            "mm_projector": {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": vision.width,
                             "hidden_size": language.width}},
        hidden_size=language.width, num_hidden_layers=language.depth, num_attention_heads=language.heads,
        intermediate_size=4 * language.width, vocab_size=language.vocabulary, rotary_pct=0.25,
        attn_implementation="eager")
    for name, value in {"action_head_type": "droid_diffusion", "concat": "token_cat", "action_dim": ACTION,
                        "state_dim": STATES, "chunk_size": HORIZON}.items():
        setattr(config, name, value)
    return config


def _pixels(image: torch.Tensor) -> torch.Tensor:
    from torchvision import transforms
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size=SIZES.vision.side, crop_size=SIZES.vision.side, image_mean=MEAN, image_std=STD,
                                   resample=3)
    x = image.permute(0, 3, 1, 2) / 255.0
    size = x.shape[-2:]
    begin, end = (1 - 0.95) / 2, (1 + 0.95) / 2
    x = x[..., int(size[0] * begin): int(size[0] * end), int(size[1] * begin): int(size[1] * end)]
    x = transforms.Resize(size, antialias=True)(x)
    side = max(size)
    square = torch.tensor(MEAN).expand(1, side, side, 3).clone()
    square[:, (side - size[0]) // 2:(side - size[0]) // 2 + size[0]] = x.permute(0, 2, 3, 1)
    return processor.preprocess(square, return_tensors="pt", do_normalize=True, do_rescale=False,
                                do_center_crop=False)["pixel_values"]


@torch.no_grad()
def record(checkout: Path) -> None:
    without_gpu()
    with importable(checkout, checkout / "llava-pythia", stubs=("IPython", "scipy")):
        import diffusers
        import policy_heads.models as heads
        import transformers
        from llava_pythia.model.language_model.pythia import configuration_llava_pythia as configurations

        heads.ConditionalUnet1D = functools.partial(heads.ConditionalUnet1D, down_dims=list(SIZES.widths),
                                                    diffusion_step_embed_dim=SIZES.step)
        from llava_pythia.model.language_model.pythia import llava_pythia

        model = fill(llava_pythia.LlavaPythiaForCausalLM(configuration(configurations, SIZES)))
    model.embed_out.diffusion_step_encoder[0].register_forward_hook(lambda module, given, out: out.float())
    ids = torch.cat([TEXT[:, :TEMPLATE], torch.tensor([[IMAGE]]), TEXT[:, TEMPLATE:]], 1)
    with mock.patch("torch.randn", lambda *args, **kwargs: NOISE):
        raw = model(input_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool),
                    images=_pixels(CAMERAS[0]), images_r=_pixels(CAMERAS[1]),
                    states=(STATE - MOMENTS[0]) / MOMENTS[1], eval=True)
    low, high = BOUNDS
    write("tinyvla", checkout, ((raw + 1) / 2 * (high - low) + low)[0], transformers=transformers.__version__,
          diffusers=diffusers.__version__)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
