"""LeRobot's pi0 and pi0.5: its own modules since 0.5; before, on a released transformers.

LeRobot 0.4.4 requires a branch of transformers 4.53 (huggingface/transformers, fix/lerobot_openpi) with openpi's
changes
to Gemma and PaliGemma: norms modulated by a condition, gated residuals, no sqrt(d) on embeddings and image features,
keys and values that are read but not extended if use_cache is false. In its environment LeRobot builds its policy on
the released modules; those that differ are then replaced, in that policy only, by those of gemma.py, which keep the
names of the released weights. transformers itself is not changed.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn

from vlacompile.frontends.gemma import AdaptiveNorm, Cache, Gemma, GemmaLayer
from vlacompile.frontends.lerobot import old_pi0
from vlacompile.frontends.lerobot.checkpoint import Checkpoint
from vlacompile.frontends.lerobot.read import NOISE, Batch, Predict, normal
from vlacompile.frontends.lerobot.versions import Reading, number, untied

CHECK = "transformers.models.siglip.check"


@contextlib.contextmanager
def accepted_transformers() -> Iterator[None]:
    """Within this context LeRobot's check for its branch of transformers succeeds."""
    asked: list[bool] = []
    module = types.ModuleType(CHECK)
    module.check_whether_transformers_replace_is_installed_correctly = lambda: asked.append(True) or True
    assert CHECK not in sys.modules, "the branch of transformers is installed; nothing needs replacing"
    sys.modules[CHECK] = module
    try:
        yield
    finally:
        del sys.modules[CHECK]
    assert asked, "LeRobot did not check for its branch of transformers: another version?"


def make(policy_class: type, config) -> nn.Module:
    """LeRobot's policy object, with random weights; of 0.4.4 as built with its branch of transformers."""
    if not _is_on_branch():
        return policy_class(config)
    with accepted_transformers():
        policy = policy_class(config)
    both = policy.model.paligemma_with_expert
    both.paligemma.model.language_model = ReleasedGemma(both.paligemma.model.language_model)
    both.gemma_expert.model = ReleasedGemma(both.gemma_expert.model)
    both.paligemma.model.get_image_features = functools.partial(image_features, both.paligemma.model)
    return policy


def _is_on_branch() -> bool:
    return not untied(version("lerobot"))


def image_features(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """[1,tokens,width], without division by sqrt(width)."""
    return model.multi_modal_projector(model.vision_tower(pixel_values).last_hidden_state)


@dataclass(frozen=True)
class GemmaOutput:
    last_hidden_state: torch.Tensor
    past_key_values: Cache | None


class ReleasedGemma(Gemma):
    """transformers' GemmaModel of the branch, built from the released one's parts."""

    def __init__(self, released: nn.Module):
        config, eps = released.config, released.config.rms_norm_eps
        condition = config.adarms_cond_dim if config.use_adarms else None
        layers = [GemmaLayer(layer.self_attn, layer.mlp, config.hidden_size, eps, condition)
                  for layer in released.layers]
        super().__init__(layers, AdaptiveNorm(config.hidden_size, eps, condition), released.rotary_emb)
        self.config, self.embed_tokens = config, released.embed_tokens

    def forward(self, inputs_embeds, attention_mask, position_ids, past_key_values: Cache | None = None,
                use_cache: bool = False, adarms_cond=None) -> GemmaOutput:
        """attention_mask: what is added to the scores [1,1,tokens,keys]. past_key_values: read, never extended."""
        assert not (use_cache and past_key_values), "LeRobot fills the cache only once"
        x, cache = self.run(inputs_embeds, attention_mask, position_ids, past_key_values, adarms_cond)
        return GemmaOutput(x, cache if use_cache else None)


def settings(checkpoint: Checkpoint) -> dict:
    return old_pi0.settings(checkpoint) if checkpoint.old_statistics else checkpoint.config


def ready(config) -> None:
    config.dtype, config.compile_model = "float32", False  # bf16 weights convert to fp32 exactly


def weights(policy: nn.Module, loaded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weight names by LeRobot's rules: published checkpoints come from openpi's code and lack the prefix "model."."""
    loaded = old_pi0.names(loaded)
    known = policy._fix_pytorch_state_dict_keys(loaded, policy.config)
    # LeRobot copies the head into the embedding, which is right where they were one weight and the file has one name
    known |= {name: tensor for name, tensor in loaded.items() if name.endswith("language_model.embed_tokens.weight")}
    return {name if name.startswith("model.") else f"model.{name}": tensor for name, tensor in known.items()}


def read_as(policy: nn.Module, reading: Reading) -> None:
    """Before 0.5 a frame that is not square was padded with -1 before [0, 1] became [-1, 1]: the model saw -3."""
    if _is_on_branch() or reading.untied:
        return
    module, original = sys.modules[type(policy).__module__], policy._preprocess_images

    def minus_three(images: torch.Tensor, *size: int) -> torch.Tensor:
        pad = module_pad(torch.ones_like(images), *size) - 1.0  # 0 inside the frame, -1 around it
        return module_pad(images, *size) + pad

    module_pad = module.resize_with_pad_torch
    padded = old_pi0.pad_at_the_left_and_top if number(reading.lerobot) < (0, 4) else minus_three

    def preprocess(batch: Batch):
        module.resize_with_pad_torch = padded
        try:
            return original(batch)
        finally:
            module.resize_with_pad_torch = module_pad

    policy._preprocess_images = preprocess


def bind(policy) -> Predict:
    return lambda batch: policy.predict_action_chunk(batch, noise=batch.pop(NOISE))


def noise(config) -> Batch:
    return {NOISE: normal(1, config.chunk_size, config.max_action_dim)}
