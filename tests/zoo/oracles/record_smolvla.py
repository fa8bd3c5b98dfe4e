"""Actions of LeRobot's own SmolVLA at the zoo's tiny size, as smolvla.json has them. To record them again, with the
interpreter of the environment `lerobot` (LeRobot 0.4.4, transformers 4.57.6): python -m
tests.zoo.oracles.record_smolvla
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path
from unittest import mock

import torch

from tests.samples.shapes import compact
from tests.samples.weights_by_name import draw_weights
from vlacompile.zoo.blocks.smolvla import HORIZON, PADDED, TINY_SMOLVLA, SmolVlaSizes

RECORDED = Path(__file__).with_name("smolvla.json")
FRAMES, LENGTH, SEEDS, EVERY = ((36, 64), (48, 48)), 16, 3, 8


def inputs(seed: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    frames = [torch.rand(1, 3, *size, generator=draw) for size in FRAMES]
    tokens = torch.randint(0, TINY_SMOLVLA.language.vocabulary, (1, LENGTH), generator=draw)
    mask = torch.arange(LENGTH)[None] < 7 + seed
    return (frames, tokens, mask, torch.randn(1, PADDED, generator=draw),
            torch.randn(1, HORIZON, PADDED, generator=draw))


def network(sizes: SmolVlaSizes = TINY_SMOLVLA) -> torch.nn.Module:
    from lerobot.policies.smolvla import smolvlm_with_expert
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching

    processor = mock.Mock()
    processor.from_pretrained().tokenizer.configure_mock(fake_image_token_id=0, global_image_token_id=1)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(smolvlm_with_expert, "AutoProcessor", processor):
        _configuration(folder, sizes)
        return VLAFlowMatching(SmolVLAConfig(vlm_model_name=folder, num_vlm_layers=sizes.language.depth, device="cpu"))


def _configuration(folder: str, sizes: SmolVlaSizes) -> None:
    from transformers import SmolVLMConfig

    language, vision = sizes.language, sizes.vision
    text = {"model_type": "llama", "rms_norm_eps": language.eps, "pad_token_id": 2, "hidden_size": language.width,
            "intermediate_size": language.hidden, "num_hidden_layers": 2 * language.depth, "head_dim": language.dim,
            "num_attention_heads": language.heads, "num_key_value_heads": language.kv_heads,
            "vocab_size": language.vocabulary}
    image = {"model_type": "smolvlm_vision", "patch_size": vision.patch, "hidden_size": vision.width,
             "intermediate_size": vision.hidden, "num_hidden_layers": vision.depth,
             "num_attention_heads": vision.heads, "image_size": vision.side}
    config = SmolVLMConfig(text_config=text, vision_config=image, scale_factor=sizes.shuffle, pad_token_id=2,
                           image_token_id=3, tie_word_embeddings=False, vocab_size=language.vocabulary)
    config.save_pretrained(folder)


def record() -> dict:
    from lerobot.policies.smolvla.modeling_smolvla import resize_with_pad

    model = network()
    draw_weights(model)
    side, chunks = TINY_SMOLVLA.vision.side, []
    for seed in range(SEEDS):
        frames, *rest, noise = inputs(seed)
        pixels = [resize_with_pad(f, side, side, pad_value=0) * 2 - 1 for f in frames]
        with torch.no_grad():
            made = model.eval().sample_actions(pixels, [torch.ones(1, dtype=torch.bool)] * len(pixels), *rest,
                                               noise=noise)
        chunks.append([[float(f"{x:.7g}") for x in row] for row in made[0, ::EVERY].tolist()])
    return {"versions": {n: importlib.metadata.version(n) for n in ("lerobot", "transformers", "torch")},
            "weights": compact({n: p.shape for n, p in model.named_parameters()}), "chunks": chunks}


if __name__ == "__main__":
    from vlacompile.frontends.lerobot.importing import lerobot_importable

    with lerobot_importable():
        found = record()
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in found.items())
    RECORDED.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
