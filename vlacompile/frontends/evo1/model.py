"""Evo-1 (Lin et al. 2025, arXiv 2511.04555): InternVL3's vision transformer and first layers of its language model, and
a transformer that denoises a chunk of actions, given all tokens of the prompt, padding included.

Weights have the names of the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.transformer import Attention, GatedMlp, RmsNorm, added, attend, projections, rotary

TIMES = 1000  # of the time embedding


@dataclass(frozen=True)
class Sizes:
    """vision, language: width, hidden width, layers, heads. kv_heads: of the language model. head: width, hidden width,
    hidden width of the state's, layers, heads. state, action: numbers, padded."""

    vision: tuple[int, int, int, int]
    patch: int
    side: int
    vision_eps: float
    language: tuple[int, int, int, int]
    kv_heads: int
    vocabulary: int
    eps: float
    base: float
    head: tuple[int, int, int, int, int]
    horizon: int
    state: int
    action: int


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q, k, v, None, q.shape[-1] ** -0.5).flatten(2))


class TwoLayers(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class VisionLayer(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, eps: float):
        super().__init__()
        self.attn, self.mlp = VisionAttention(width, heads), TwoLayers(width, hidden)
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps) for _ in range(2))
        self.ls1, self.ls2 = (nn.Parameter(torch.ones(width)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


class VisionModel(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        width, hidden, depth, heads = sizes.vision
        count = (sizes.side // sizes.patch) ** 2
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.embeddings.patch_embedding = nn.Conv2d(3, width, sizes.patch, sizes.patch)
        self.embeddings.position_embedding = nn.Parameter(torch.zeros(1, count + 1, width))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer(width, hidden, heads, sizes.vision_eps) for _ in range(depth))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.embeddings.class_embedding, x], 1) + self.embeddings.position_embedding
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]


class LanguageLayer(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        width, hidden, _, heads = sizes.language
        self.self_attn = Attention(width, heads, sizes.kv_heads, width // heads, bias=True)
        self.mlp = GatedMlp(width, hidden, F.silu)
        self.input_layernorm, self.post_attention_layernorm = (RmsNorm(width, sizes.eps) for _ in range(2))

    def forward(self, x, mask, rope, kept) -> torch.Tensor:
        q, k, v = projections(self.self_attn, self.input_layernorm(x), rope)
        seen = attend(q, k, v, mask, self.self_attn.scaling).flatten(2)
        x = x + self.self_attn.o_proj(seen if kept is None else seen * kept)
        return x + self.mlp(self.post_attention_layernorm(x))


class VisionLanguage(nn.Module):
    """As InternVLChatModel."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width, joined = sizes.language[0], 4 * sizes.vision[0]
        self.base, self.head_dim = sizes.base, width // sizes.language[3]
        self.vision_model = VisionModel(sizes)
        self.language_model = nn.Module()
        self.language_model.model = inner = nn.Module()
        inner.embed_tokens = nn.Embedding(sizes.vocabulary, width)
        inner.layers = nn.ModuleList(LanguageLayer(sizes) for _ in range(sizes.language[2]))
        inner.norm = RmsNorm(width, sizes.eps)
        self.mlp1 = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.GELU(), nn.Linear(width, width))

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1,3,side,side] -> [1,tokens,width]: four patches are a token."""
        x = self.vision_model(pixels)
        half = math.isqrt(x.shape[1]) // 2
        x = x.view(1, half, 2, half, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return self.mlp1(x.reshape(1, half * half, -1))

    def read(self, x: torch.Tensor, kept: torch.Tensor, flash: bool) -> torch.Tensor:
        """x [1,n,width]. kept: bool [1,n]. flash: whether tokens that are not kept get nothing of others."""
        count, inner = x.shape[1], self.language_model.model
        mask = added(torch.ones(count, count).tril().bool() & kept[:, None])
        rope = rotary(torch.arange(count)[None], self.head_dim, self.base)
        for layer in inner.layers:
            x = layer(x, mask, rope, kept[..., None].to(x.dtype) if flash else None)
        return inner.norm(x)


class Linear(nn.Module):
    """CategorySpecificLinear of one category."""

    def __init__(self, size: int, wanted: int):
        super().__init__()
        self.linear = nn.Linear(size, wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Mlp(nn.Module):
    def __init__(self, size: int, hidden: int, wanted: int):
        super().__init__()
        self.fc1, self.fc2 = Linear(size, hidden), Linear(hidden, wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class ActionEncoder(nn.Module):
    def __init__(self, size: int, width: int, horizon: int):
        super().__init__()
        self.W1, self.W2, self.W3 = Linear(size, width), Linear(width, width), Linear(width, width)
        self.register_buffer("places", waves(horizon, width), persistent=False)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        return self.W3(F.relu(self.W2(F.relu(self.W1(actions)) + self.places)))


class CrossBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, context: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        weights, biases = (t.chunk(3) for t in (self.attn.in_proj_weight, self.attn.in_proj_bias))
        q, k, v = (F.linear(of, w, b).unflatten(-1, (self.attn.num_heads, -1)).transpose(1, 2)
                   for of, w, b in zip((self.norm1(x), context, context), weights, biases, strict=True))
        x = x + self.attn.out_proj(attend(q, k, v, None, q.shape[-1] ** -0.5).flatten(2))
        return x + self.ff(self.norm2(x) + time)


class FlowHead(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        width, hidden, state_hidden, depth, heads = sizes.head
        self.transformer_blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.seq_pool_proj = nn.Linear(sizes.horizon * width, width)
        self.mlp_head = Mlp(width, hidden, sizes.horizon * sizes.action)
        self.state_encoder = Mlp(sizes.state, state_hidden, width)
        self.action_encoder = ActionEncoder(sizes.action, width, sizes.horizon)
        self.register_buffer("times", waves(TIMES, width), persistent=False)

    def denoise(self, seen: torch.Tensor, state: torch.Tensor, actions: torch.Tensor, moving: torch.Tensor, steps: int
                ) -> torch.Tensor:
        """seen [1,n,width]. state [1,d]. actions [1,H,d]: noise in [-1, 1]. moving [d]: 1 where an action is the
        robot's. Returns the chunk [1,H,d]."""
        context = torch.cat([seen, self.state_encoder(state)[:, None]], 1)
        for step in range(steps):
            time = self.times[min(int(step / steps * (TIMES - 1)), TIMES - 1)]
            x = self.action_encoder(actions * moving)
            for block in self.transformer_blocks:
                x = block(x, context, time)
            velocity = self.mlp_head(self.seq_pool_proj(self.norm_out(x).flatten(1)))
            actions = actions + 1.0 / steps * velocity.view(actions.shape)
        return actions


class Evo1(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.embedder = nn.Module()
        self.embedder.model = VisionLanguage(sizes)
        self.action_head = FlowHead(sizes)


def waves(count: int, width: int) -> torch.Tensor:
    """[count, width]: sines and cosines by turns."""
    angles = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * -(math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def is_unused(name: str) -> bool:
    """Tables that are computed."""
    return name.endswith((".time_pos_enc.pe", ".pos_encoding.pe"))
