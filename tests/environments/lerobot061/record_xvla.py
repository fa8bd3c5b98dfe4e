"""Records what the authors' code does with X-VLA checkpoints that it saved: xvla.json.

python -m tests.environments.lerobot061.record_xvla CHECKOUT PACKAGES

CHECKOUT: of 2toINF/X-VLA (recorded: its state of May 2026, as xunushan/X-VLA 2c4fedf has it). PACKAGES: a folder with
transformers 4.51.3 and tokenizers 0.21.4. Run in the environment lerobot, which has the rest.
"""

from __future__ import annotations

import json
import sys
import types
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from tests.environments.lerobot.checkpoints import trained_tokenizer
from tests.samples.shapes import compact
from tests.samples.weights_by_name import draw_weights, weight
from vlacompile.frontends.stub_packages import declare_torchvision_ops, stubbed

RECORDED = Path(__file__).with_name("xvla.json")
NOT_CALLED = ("fastapi", "uvicorn", "json_numpy", "cv2")
SIDE, SEEDS, EVERY, STEPS, DOMAIN = 64, 3, 3, 3, 2
INSTRUCTION = "pick up the red cube"
CASES = {"ee6d": {"images": 2, "action_mode": "ee6d"}, "joint": {"images": 1, "action_mode": "joint"},
         "auto": {"images": 3, "action_mode": "auto", "real_action_dim": 9, "use_hetero_proj": True}}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
VISION = {"model_type": "davit", "depths": [1, 1, 2, 1], "dim_embed": [16, 32, 48, 64], "num_heads": [2, 2, 4, 4],
          "num_groups": [2, 2, 4, 4], "patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2],
          "patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "window_size": 4,
          "projection_dim": 32, "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
          "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
          "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"], "drop_path_rate": 0.1}
TEXT = {"vocab_size": 512, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 256}
FLORENCE = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 32, "pad_token_id": 1, "bos_token_id": 0,
            "eos_token_id": 2, "vocab_size": 512}
SIZES = {"hidden_size": 32, "depth": 2, "num_heads": 4, "num_domains": 4, "len_soft_prompts": 4, "dim_time": 8,
         "max_len_seq": 160, "num_actions": 8}
# Of the released model: Florence-2-large, and the defaults
REAL_VISION = {"depths": [1, 1, 9, 1], "dim_embed": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64],
               "num_groups": [8, 16, 32, 64], "window_size": 12, "projection_dim": 1024}
REAL_TEXT = {"vocab_size": 51289, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12,
             "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096,
             "decoder_ffn_dim": 4096, "max_position_embeddings": 1024}
REAL_FLORENCE = FLORENCE | {"vision_config": VISION | REAL_VISION, "text_config": REAL_TEXT, "projection_dim": 1024,
                            "vocab_size": 51289}


def observation(seed: int, images: int, numbers: int) -> tuple[list[np.ndarray], np.ndarray]:
    """(frames uint8 [SIDE,SIDE,3], state f32 [numbers])"""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    return list(coarse.repeat(8, 1).repeat(8, 2)), draw.standard_normal(numbers).astype(np.float32)


def processor_files(folder: Path) -> None:
    """What XVLAProcessor saves beside the model."""
    from tokenizers.processors import RobertaProcessing
    from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

    bpe = trained_tokenizer(SPECIAL)
    bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                            unk_token="<unk>").save_pretrained(folder)
    CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False, resample=3, do_convert_rgb=True,
                       image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(folder)


def record(folder: Path) -> dict:
    from models.configuration_xvla import XVLAConfig
    from models.modeling_xvla import XVLA
    from models.processing_xvla import XVLAProcessor
    from PIL import Image
    from transformers import BartTokenizerFast, CLIPImageProcessor

    out: dict = {"cases": {}}
    for case, about in CASES.items():
        saved, settings = folder / case, {k: v for k, v in about.items() if k != "images"}
        model = XVLA(XVLAConfig(florence_config=FLORENCE, **SIZES, **settings)).eval()
        draw_weights(model)
        kept = model.state_dict()
        for name, buffer in model.named_buffers():  # a table of waves is saved too
            if name in kept:
                buffer.data = weight(name, buffer.shape)
        model.save_pretrained(saved)
        processor_files(saved)
        processor = XVLAProcessor(CLIPImageProcessor.from_pretrained(saved),
                                  BartTokenizerFast(tokenizer_file=str(saved / "tokenizer.json")))
        answers = []
        for seed in range(SEEDS):
            frames, state = observation(seed, about["images"], model.action_space.dim_action)
            inputs = processor([Image.fromarray(f) for f in frames], INSTRUCTION)
            torch.manual_seed(1)  # the noise is the first draw
            chunk = model.generate_actions(**inputs, proprio=torch.from_numpy(state)[None],
                                           domain_id=torch.tensor([DOMAIN]), steps=STEPS)[0]
            answers.append([[float(f"{x:.7g}") for x in row] for row in chunk[::EVERY].tolist()])
        from safetensors import safe_open

        with safe_open(saved / "model.safetensors", "pt") as file:
            shapes = {n: list(file.get_slice(n).get_shape()) for n in sorted(file.keys())}
        out["cases"][case] = {"config": json.loads((saved / "config.json").read_text(encoding="utf-8")),
                              "weights": shapes, "actions": answers}
    with torch.device("meta"):
        config = XVLAConfig(florence_config=REAL_FLORENCE)
        real = XVLA(config)
    config.save_pretrained(folder / "real")
    return out | {"real": {"config": json.loads((folder / "real" / "config.json").read_text(encoding="utf-8")),
                           "weights": compact({n: p.shape for n, p in real.named_parameters()})}}


class DropPath(torch.nn.Identity):
    """timm's, of inference."""


def main(checkout: str, packages: str) -> None:
    sys.path[:0] = [checkout, packages]
    declare_torchvision_ops()
    from transformers import CLIPImageProcessor, PreTrainedModel  # noqa: F401 (before the stubs)

    sys.modules["timm"], sys.modules["timm.layers"] = types.ModuleType("timm"), types.ModuleType("timm.layers")
    sys.modules["timm.layers"].DropPath = DropPath
    sys.modules["timm.layers"].trunc_normal_ = torch.nn.init.trunc_normal_
    with TemporaryDirectory() as name, chdir(name), stubbed(NOT_CALLED):
        linspace = torch.linspace  # its numbers are read, which the meta device does not have
        torch.linspace = lambda *a, **k: linspace(*a, **{**k, "device": "cpu"})
        found = record(Path(name))
    parts = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in
                       (found.pop("cases") | found).items())
    RECORDED.write_text("{" + parts + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
