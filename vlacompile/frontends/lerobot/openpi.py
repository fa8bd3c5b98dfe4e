"""LeRobot's pi0 and pi0.5 on a released transformers.

LeRobot 0.4.4 requires a branch of transformers 4.53 (huggingface/transformers, fix/lerobot_openpi) with openpi's
changes
to Gemma and PaliGemma: norms modulated by a condition, gated residuals, no sqrt(d) on embeddings and image features,
keys and values that are read but not extended if use_cache is false. Here LeRobot builds its policy on the released
modules; those that differ are then replaced, in that policy only, by the ones below, which keep the names of the
released weights. transformers itself is not changed.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from vlacompile.frontends.lerobot.read import NOISE, Batch, Predict, normal

Cache = list[tuple[torch.Tensor, torch.Tensor]]  # per layer: keys and values [1,kv_heads,tokens,head_dim]
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
    """LeRobot's policy object, with random weights, as built with its branch of transformers."""
    with accepted_transformers():
        policy = policy_class(config)
    both = policy.model.paligemma_with_expert
    both.paligemma.model.language_model = Gemma(both.paligemma.model.language_model)
    both.gemma_expert.model = Gemma(both.gemma_expert.model)
    both.paligemma.model.get_image_features = functools.partial(image_features, both.paligemma.model)
    return policy


def image_features(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """[1,tokens,width], without division by sqrt(width)."""
    return model.multi_modal_projector(model.vision_tower(pixel_values).last_hidden_state)


class AdaptiveNorm(nn.Module):
    """RMS norm. With a condition [1,c], the scale, shift and the gate of the following residual are computed from it
    (adaRMS of pi0.5); without one the scale is 1 + weight and there is no gate."""

    def __init__(self, width: int, eps: float, condition: int | None):
        super().__init__()
        self.eps = eps
        if condition is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(condition, 3 * width)

    def forward(self, x: torch.Tensor, cond: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        scaled = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        if cond is None:
            return (scaled * (1.0 + self.weight.float())).to(x.dtype), None
        scale, shift, gate = self.dense(cond)[:, None].chunk(3, -1)
        return (scaled * (1.0 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


def _add(residual: torch.Tensor, x: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    return residual + x if gate is None else residual + x * gate


class GemmaLayer(nn.Module):
    def __init__(self, released: nn.Module, eps: float, condition: int | None):
        super().__init__()
        self.self_attn, self.mlp = released.self_attn, released.mlp
        width = released.input_layernorm.weight.shape[0]
        self.input_layernorm = AdaptiveNorm(width, eps, condition)
        self.post_attention_layernorm = AdaptiveNorm(width, eps, condition)

    def forward(self, x, mask, rope, past, cond):
        """past: cached keys and values of earlier tokens, or None. Returns (x, keys and values of these tokens)."""
        residual = x
        x, gate = self.input_layernorm(x, cond)
        x, present = self._attend(x, mask, rope, past)
        x = residual = _add(residual, x, gate)
        x, gate = self.post_attention_layernorm(x, cond)
        return _add(residual, self.mlp(x), gate), present

    def _attend(self, x, mask, rope, past):
        from transformers.models.gemma.modeling_gemma import apply_rotary_pos_emb, eager_attention_forward

        attn, heads = self.self_attn, (*x.shape[:-1], -1, self.self_attn.head_dim)
        q, k, v = (p(x).view(heads).transpose(1, 2) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *rope)
        all_k, all_v = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
        out, _ = eager_attention_forward(attn, q, all_k, all_v, mask, scaling=attn.scaling)
        return attn.o_proj(out.reshape(*x.shape[:-1], -1)), (k, v)


@dataclass(frozen=True)
class GemmaOutput:
    last_hidden_state: torch.Tensor
    past_key_values: Cache | None


class Gemma(nn.Module):
    """transformers' GemmaModel of the branch, built from the released one's parts."""

    def __init__(self, released: nn.Module):
        super().__init__()
        self.config = config = released.config
        self.embed_tokens, self.rotary_emb = released.embed_tokens, released.rotary_emb
        condition = config.adarms_cond_dim if config.use_adarms else None
        self.layers = nn.ModuleList([GemmaLayer(layer, config.rms_norm_eps, condition) for layer in released.layers])
        self.norm = AdaptiveNorm(config.hidden_size, config.rms_norm_eps, condition)

    def forward(self, inputs_embeds, attention_mask, position_ids, past_key_values: Cache | None = None,
                use_cache: bool = False, adarms_cond=None) -> GemmaOutput:
        """attention_mask: what is added to the scores [1,1,tokens,keys]. past_key_values: read, never extended."""
        assert not (use_cache and past_key_values), "LeRobot fills the cache only once"
        x, rope = inputs_embeds, self.rotary_emb(inputs_embeds, position_ids)
        cache: Cache = []
        for i, layer in enumerate(self.layers):
            x, present = layer(x, attention_mask, rope, past_key_values[i] if past_key_values else None, adarms_cond)
            cache.append(present)
        x, _ = self.norm(x, adarms_cond)
        return GemmaOutput(x, cache if use_cache else None)


def ready(config) -> None:
    config.dtype, config.compile_model = "float32", False  # bf16 weights convert to fp32 exactly


def weights(policy: nn.Module, loaded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weight names by LeRobot's rules: published checkpoints come from openpi's code and lack the prefix "model."."""
    known = policy._fix_pytorch_state_dict_keys(loaded, policy.config)
    return {name if name.startswith("model.") else f"model.{name}": tensor for name, tensor in known.items()}


def bind(policy) -> Predict:
    return lambda batch: policy.predict_action_chunk(batch, noise=batch.pop(NOISE))


def noise(config) -> Batch:
    return {NOISE: normal(1, config.chunk_size, config.max_action_dim)}
