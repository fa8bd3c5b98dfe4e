"""Runs the authors' InternVLA-M1 on seeded inputs:

    .venv/environments/gauntlet/bin/python -m tests.zoo.oracles.record_internvla_m1 INTERNVLA DINOV2

INTERNVLA, DINOV2: checkouts of InternRobotics/InternVLA-M1, 949223b, and of facebookresearch/dinov2, b8931f7, which
torch.hub would download. The chat is given as token ids and pixels, as its processor makes them.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from benchmarks.gauntlet.importing import importable, without_init
from tests.zoo.oracles import internvla_inputs as given
from vlacompile.zoo.systems.internvla_m1 import ACTION, GUIDANCE, HORIZON, QUERIES, SMALL, STEPS, Sizes

STUBS = ("qwen_vl_utils", "omegaconf", "accelerate", "rich", "wandb", "cv2", "sklearn", "matplotlib", "peft")


def _qwen(sizes: Sizes) -> torch.nn.Module:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision, text = sizes.vision, sizes.language
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        vision_config={"depth": vision.depth, "hidden_size": vision.width, "num_heads": vision.heads,
                       "intermediate_size": vision.hidden, "out_hidden_size": vision.out, "patch_size": vision.patch,
                       "window_size": vision.window * vision.patch, "fullatt_block_indexes": list(vision.whole)},
        vocab_size=text.vocabulary, hidden_size=text.width, intermediate_size=text.hidden,
        num_hidden_layers=text.depth, num_attention_heads=text.heads, num_key_value_heads=text.kv_heads,
        rope_theta=text.base, rms_norm_eps=text.eps, tie_word_embeddings=True, attn_implementation="eager",
        rope_scaling={"type": "mrope", "mrope_section": list(sizes.sections)}, image_token_id=given.IMAGE,
        video_token_id=given.VIDEO, vision_start_token_id=given.BEGIN, vision_end_token_id=given.END))


def _dino(sizes: Sizes, side: int) -> torch.nn.Module:
    from dinov2.layers import MemEffAttention
    from dinov2.layers import NestedTensorBlock as Block
    from dinov2.models.vision_transformer import DinoVisionTransformer

    dino = sizes.dino
    return DinoVisionTransformer(
        img_size=side, patch_size=dino.patch, embed_dim=dino.width, depth=dino.depth, num_heads=dino.heads,
        mlp_ratio=dino.hidden / dino.width, init_values=1.0, block_chunks=0, interpolate_antialias=False,
        interpolate_offset=0.1, block_fn=functools.partial(Block, attn_class=MemEffAttention))


def network(checkout: Path, dinov2: Path, sizes: Sizes, side: int = 518) -> torch.nn.Module:
    """side: of the frames that DINOv2 was trained with."""
    without_init(checkout, "InternVLA", "InternVLA.training")
    config = SimpleNamespace(
        framework=SimpleNamespace(
            layer_qformer=SimpleNamespace(qformer_start_layer=sizes.language.depth,
                                          qformer_end_layer=sizes.language.depth + 1, num_query_tokens=QUERIES,
                                          input_dim=sizes.language.width, ouptput_dim=sizes.expert.width),
            action_model=SimpleNamespace(action_model_type="DiT-B", action_hidden_dim=sizes.expert.width,
                                         action_dim=ACTION, future_action_window_size=HORIZON - 1,
                                         past_action_window_size=0), dino=SimpleNamespace()),
        datasets=SimpleNamespace(vla_data=SimpleNamespace()))
    with importable(checkout, dinov2, stubs=STUBS):
        import InternVLA.model.framework.M1
        import InternVLA.model.modules.action_model.DiTActionHeader
        from InternVLA.model.modules.dino_model import dino

        module, head = InternVLA.model.framework.M1, InternVLA.model.modules.action_model.DiTActionHeader

        class Interface(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = _qwen(sizes)

            def forward(self, **words):
                return self.model(**words)

        make = functools.partial(head.DiT, depth=sizes.expert.depth, num_heads=sizes.expert.heads,
                                 token_size=sizes.expert.width)
        with mock.patch.object(module, "get_qwen2_5_interface", lambda config: Interface()), \
                mock.patch.dict(head.DiT_models, {"DiT-B": make}), \
                mock.patch.object(torch.hub, "load", lambda *names, **words: _dino(sizes, side)):
            backbone = dino.DINOv2BackBone.__init__

            def named(self, *names, **words):
                backbone(self, "dinov2_vits14")
                self.num_channels = sizes.dino.width

            with mock.patch.object(dino.DINOv2BackBone, "__init__", named):
                return module.InternVLA_M1(config)


def chat(seed: int) -> dict[str, torch.Tensor]:
    """As the processor makes it: every frame twice, cut into patches, a token's four beside each other."""
    from vlacompile.frontends.resize import resize
    from vlacompile.zoo.blocks.qwen_vl import MEAN, MERGE, STD

    vision, patches, parts = SMALL.vision, [], [given.BEFORE]
    rows, columns = vision.grid
    for i, frame in enumerate(given.frames(seed)):
        x = resize(frame.permute(0, 3, 1, 2).float(), (rows * vision.patch, columns * vision.patch), "bicubic") / 255.0
        x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        x = x.expand(2, -1, -1, -1).reshape(1, 2, 3, rows // MERGE, MERGE, vision.patch, columns // MERGE, MERGE,
                                            vision.patch)
        patches.append(x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns, -1))
        parts += [*([given.BETWEEN] if i else []), torch.full((1, rows * columns // MERGE**2), given.IMAGE)]
    ids = torch.cat([*parts, given.words(seed)[:, :given.USED]], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.cat(patches),
            "image_grid_thw": torch.tensor([[1, rows, columns]] * len(patches))}


@torch.no_grad()
def record(checkout: Path, dinov2: Path) -> None:
    import transformers

    model = network(checkout, dinov2, SMALL, given.PLACES * SMALL.dino.patch).eval()
    for name, tensor in model.state_dict().items():
        if not name.endswith("lm_head.weight"):  # the embedding
            tensor.copy_(given.weight_of(name, tensor.shape))
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = []
    for seed in range(2):
        model.qwen_vl_interface.build_qwenvl_inputs = lambda images, instructions, seed=seed: chat(seed)
        model.dino_encoder.prepare_dino_input = lambda images, seed=seed: (
            torch.cat(given.frames(seed)).permute(0, 3, 1, 2) / 255.0 - mean) / std
        with mock.patch.object(torch, "randn", lambda *shape, **words: given.NOISE):
            actions = model.predict_action([None], [""], cfg_scale=GUIDANCE, use_ddim=True, num_ddim_steps=STEPS)
        found.append([[float(f"{x:.7g}") for x in row] for row in actions["normalized_actions"][0].tolist()])
    shapes = {n: list(t.shape) for n, t in model.state_dict().items()}
    whole = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "shapes": shapes,
             "chunks": found}
    given.RECORDED.write_text("{" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in whole.items()) + "}\n",
                              encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
