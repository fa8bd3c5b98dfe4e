"""GR00T N1: Eagle 2 (SigLIP 2, twelve layers of SmolLM2-1.7B) and a DiT, without what N1.5 added."""

from __future__ import annotations

from dataclasses import replace

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.groot import CHECKPOINT, GrootSizes, policy_of
from vlacompile.zoo.blocks.language_model import LanguageSizes
from vlacompile.zoo.blocks.siglip import SO400M
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.system import TINY, Published, System

# <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<img>
PROMPT = (1, 9690, 198, 2683, 359, 253, 5356, 216, 49161, 30, 2, 198, 1, 4093, 198, 49152)
SMOLLM2 = LanguageSizes(2048, 12, 32, 32, 8192, 49164, eps=1e-5, base=130000.0)
REAL = GrootSizes(PROMPT, SO400M, SMOLLM2, 2, 1536)
SMALL = replace(REAL, before=tuple(range(1, len(PROMPT) + 1)), vision=TowerSizes(48, 2, 4, 96, 14, 56),
                language=replace(SMOLLM2, width=64, depth=3, heads=4, kv_heads=4, hidden=128, vocabulary=100),
                project=48, hidden=40, heads=4, head_dim=12, layers=4, places=32, embodiments=3, embodiment=1)
NAMES = ("model", "linear")


def make(variant: str, size: str) -> Policy:
    return policy_of("groot_n1", SMALL if size == TINY else REAL, NAMES)


_PAPER, _CODE = "arXiv 2503.14734", "github.com/NVIDIA/Isaac-GR00T, n1-release"
SYSTEM = System(
    "GR00T N1", 2025, 24, f"{_PAPER} and {_CODE}", make,
    says=("Eagle 2 and a diffusion transformer",),
    code="Apache-2.0",
    weights="NVIDIA's licence for non-commercial use", checkpoint=CHECKPOINT,
    published=(
        Published("latency", 63.9, "ms per chunk of 16", "NVIDIA L40, bf16", _PAPER),
        Published("parameters", 2200, "M", "of which 1340 M in the vision-language model", _PAPER),
    ))
