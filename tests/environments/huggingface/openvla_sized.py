"""A policy of the shape and size of OpenVLA-OFT: two vision towers, Llama-2-7B in one pass, a regression head. Random
weights; meant to be planned without them (`vlacompile plan tests.environments.huggingface.openvla_sized:make
--no-weights`)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import vlacompile as vc
from vlacompile.frontends.quiet import quiet

TOKENS, CHUNK, ACTION = 32, 8, 7


class Policy(nn.Module):
    """layers: of the language model."""

    def __init__(self, layers: int):
        super().__init__()
        with quiet():
            from transformers import (
                Dinov2WithRegistersConfig,
                Dinov2WithRegistersModel,
                LlamaConfig,
                LlamaModel,
                SiglipVisionConfig,
                SiglipVisionModel,
            )
            from transformers.initialization import no_init_weights

        with no_init_weights():  # their content is not asked for
            self.fine = SiglipVisionModel(SiglipVisionConfig(
                hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27, patch_size=14,
                image_size=224))
            self.shape = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(
                hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, patch_size=14, image_size=224))
            self.read = LlamaModel(LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers,
                                               num_attention_heads=32, vocab_size=32064))
        self.project = nn.Sequential(nn.Linear(1152 + 1024, 8704), nn.GELU(), nn.Linear(8704, 4096), nn.GELU(),
                                     nn.Linear(4096, 4096))
        self.queries = nn.Parameter(torch.zeros(1, CHUNK * ACTION, 4096))
        self.head = nn.Sequential(nn.Linear(ACTION * 4096, 4096), nn.ReLU(), nn.Linear(4096, ACTION))

    def forward(self, image, tokens) -> dict[str, torch.Tensor]:
        pixels = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        fine, shape = (tower(pixel_values=pixels).last_hidden_state for tower in (self.fine, self.shape))
        seen = self.project(torch.cat([fine, shape[:, 5:]], -1))
        x = torch.cat([seen, self.read.embed_tokens(tokens), self.queries], 1)
        cosine, sine = self.read.rotary_emb(x, torch.arange(x.shape[1])[None])
        for layer in self.read.layers:
            x = x + self._attend(layer.self_attn, layer.input_layernorm(x), cosine[:, None], sine[:, None])
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        actions = self.read.norm(x)[:, -CHUNK * ACTION:].reshape(1, CHUNK, ACTION * 4096)
        return {"action": self.head(actions)}

    def _attend(self, attention: nn.Module, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        """Both ways: there is no mask."""
        def heads(y):
            return y.view(1, x.shape[1], 32, 128).transpose(1, 2)

        def turned(y):
            return y * cosine + torch.cat([-y[..., 64:], y[..., :64]], -1) * sine

        q, k, v = (heads(p(x)) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        return attention.o_proj(scaled_dot_product_attention(turned(q), turned(k), v).transpose(1, 2).flatten(2))


def make(layers: int = 32) -> vc.Policy:
    sources = {"image": vc.Source("observation"), "tokens": vc.Source("task")}
    return vc.Policy("openvla_sized", Policy(layers).eval(), sources, {
        "image": torch.zeros(1, 224, 224, 3, dtype=torch.uint8),
        "tokens": torch.zeros(1, TOKENS, dtype=torch.int64)})
