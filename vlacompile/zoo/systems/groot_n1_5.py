"""GR00T N1.5: Eagle 2.5 (SigLIP 2, twelve layers of Qwen3-1.7B), attention among its features, a DiT."""

from __future__ import annotations

from dataclasses import replace

from vlacompile.policy.policy import Policy
from vlacompile.zoo.blocks.groot import CHECKPOINT, FUTURE, GrootSizes, policy_of
from vlacompile.zoo.blocks.language_model import LanguageSizes
from vlacompile.zoo.blocks.siglip import SO400M
from vlacompile.zoo.blocks.vision_tower import TowerSizes
from vlacompile.zoo.system import TINY, Published, System

# <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image 1><img>
PROMPT = (151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 27, 1805, 220, 16, 29,
          151670)
QWEN3 = LanguageSizes(2048, 12, 16, 8, 6144, 151680, head_dim=128, base=1e6, head_norm=True)
REAL = GrootSizes(PROMPT, SO400M, QWEN3, 1, None, mixing=(32, 64, 4), future=FUTURE)
SMALL = replace(REAL, before=tuple(range(1, len(PROMPT) + 1)), vision=TowerSizes(48, 2, 4, 96, 14, 56),
                language=replace(QWEN3, width=64, depth=3, heads=4, kv_heads=2, hidden=128, vocabulary=100,
                                 head_dim=16),
                hidden=48, heads=4, head_dim=12, layers=4, mixing=(4, 16, 2), places=32, embodiments=3, embodiment=1)
NAMES = ("eagle_model", "eagle_linear")


def make(variant: str, size: str) -> Policy:
    return policy_of("groot_n1_5", SMALL if size == TINY else REAL, NAMES)


_CODE = "github.com/NVIDIA/Isaac-GR00T, n1.5-release"
SYSTEM = System(
    "GR00T N1.5", 2025, 25, f"{_CODE}; LeRobot 0.4.4", make,
    says=("Eagle 2.5, attention among its features, and a diffusion transformer",),
    code="Apache-2.0",
    weights="NVIDIA's licence for non-commercial use", checkpoint=CHECKPOINT,
    published=(
        Published("latency", 66, "ms per chunk of 16", "AGX Orin, TensorRT FP16, sum of its seven engines",
                  f"{_CODE}, deployment_scripts"),
        Published("parameters", 1068.8, "M", "action head, 32 embodiments", _CODE),
    ))
