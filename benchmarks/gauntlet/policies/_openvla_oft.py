"""What the glue of OpenVLA-OFT's two heads shares: the model with two cameras and the arm's state, and its inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import importable, numpy_in_torch, small_timm, without_init
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("OpenVLA-OFT", "moojink/openvla-oft", "213c5ff8d6e9673885d7e4dd6f2ce73b5d8a45db",
                    "gauntlet-prismatic", shared=Path(__file__).name,
                    note="with Llama of transformers 4.40.1; the authors' fork of transformers, whose attention is "
                         "bidirectional, is no package")

EMPTY, WIDTH = 29871, 64  # the token "", behind the prompt


@contextlib.contextmanager
def importing(checkout: Path) -> Iterator[None]:
    without_init(checkout, "prismatic", "prismatic.models", "prismatic.training", "prismatic.vla")
    with importable(checkout), small_timm(embed_dim=48, depth=3, num_heads=4):
        yield


def vision_language_action():
    """(the author's module, a model of it). Within `importing`."""
    from prismatic.extern.hf import modeling_prismatic as modeling
    from prismatic.extern.hf.configuration_prismatic import OpenVLAConfig

    with numpy_in_torch(modeling):
        policy = modeling.OpenVLAForActionPrediction(OpenVLAConfig(
            norm_stats={"libero": {"action": {"q01": [-0.5] * 7, "q99": [0.5] * 7, "mask": [True] * 6 + [False]}}},
            vision_backbone_id="dinosiglip-vit-so-224px", llm_backbone_id="llama2-7b-pure",
            arch_specifier="no-align+fused-gelu-mlp", text_config={
                "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                "vocab_size": 32064}))
    policy.vision_backbone.set_num_images_in_input(2)
    return modeling, policy


def predicted(modeling, policy, tokens, front, wrist, state, **heads) -> dict:
    ids = torch.cat([tokens, torch.tensor([[EMPTY]])], 1)
    with numpy_in_torch(modeling):
        action, _ = policy.predict_action(ids, "libero", proprio=state, pixel_values=torch.cat([front, wrist], 1),
                                          attention_mask=torch.ones_like(ids), **heads)
    return {"action": action.tensor[None]}


SEEN = vc.Source("observation")
SOURCES = {"tokens": vc.Source("task"), "front": SEEN, "wrist": SEEN, "state": SEEN}


def examples() -> dict[str, torch.Tensor]:
    return {"tokens": torch.randint(3, 29000, (1, 24)), "front": torch.randn(1, 6, 224, 224),
            "wrist": torch.randn(1, 6, 224, 224), "state": torch.randn(1, 8)}
