"""openpi's pi0 in PyTorch (Physical Intelligence, 2025): SigLIP, Gemma with a second set of weights, ten flow steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

import vlacompile as vc
from benchmarks.gauntlet.importing import fix, importable, random_weights
from benchmarks.gauntlet.original import Original

ORIGINAL = Original("openpi, pi0", "Physical-Intelligence/openpi", "15a9616a00943ada6c20a0f158e3adb39df2ccac",
                    ranges={"words_mask": lambda rng: torch.arange(16)[None] < int(rng.integers(1, 17))},
                    note="sizes of the vision tower and the vocabulary are constants of the code, fixed smaller in the "
                         "classes of transformers' configurations")

HORIZON, ACTIONS, WORDS, VOCABULARY = 10, 32, 16, 1000
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")


def make(checkout: Path) -> vc.Policy:
    source = checkout / "src"
    with importable(source, stubs=("jax", "flax", "beartype", "jaxtyping", "augmax")):
        from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig, models

        for name in ("gemma", "paligemma", "siglip"):  # as the original copies its files over transformers'
            replaced = source / "openpi" / "models_pytorch" / "transformers_replace" / "models" / name
            getattr(models, name).__path__.insert(0, str(replaced))
        from openpi.models_pytorch import gemma_pytorch
        from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

        fix(GemmaConfig, vocab_size=VOCABULARY)
        fix(SiglipVisionConfig, projection_dim=64, intermediate_size=128)
        gemma_pytorch.CONFIG_MAPPING = {"gemma": GemmaConfig, "paligemma": lambda: PaliGemmaConfig(
            text_config=GemmaConfig(), vision_config=SiglipVisionConfig(
                hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14))}
        policy = PI0Pytorch(SimpleNamespace(
            pi05=False, paligemma_variant="dummy", action_expert_variant="dummy", dtype="float32", action_dim=ACTIONS,
            action_horizon=HORIZON, pytorch_compile_mode=None))
    random_weights(policy).eval()

    def infer(base, left, right, words, words_mask, state, noise):
        images = dict(zip(CAMERAS, (base, left, right), strict=True))
        return {"action": policy.sample_actions("cpu", SimpleNamespace(
            images=images, image_masks={}, state=state, tokenized_prompt=words, tokenized_prompt_mask=words_mask,
            token_ar_mask=None, token_loss_mask=None), noise=noise)}

    task, seen, image = vc.Source("task"), vc.Source("observation"), torch.rand(1, 3, 224, 224) * 2 - 1
    return vc.Policy("openpi", infer, {
        "base": seen, "left": seen, "right": seen, "words": task, "words_mask": task, "state": seen,
        "noise": vc.Source("step")}, {
        "base": image, "left": image.flip(-1), "right": image.flip(-2),
        "words": torch.randint(0, VOCABULARY, (1, WORDS)), "words_mask": torch.arange(WORDS)[None] < 11,
        "state": torch.randn(1, ACTIONS), "noise": torch.randn(1, HORIZON, ACTIONS)})
