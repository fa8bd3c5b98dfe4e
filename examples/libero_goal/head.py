"""The trained part of the policies: late fusion by cross attention on language tokens, one chunk.

After NanoVLA (arXiv 2510.25122): frozen encoders, queries that attend to a memory of vision, language
and state tokens, regression of the whole chunk. The paper has no code; sizes are our own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 50  # H: actions per chunk
PER_QUERY = 5  # actions that one query predicts
PREDICTED = (0, 1, 2, 5, 6)  # of the 7 action dimensions: translation, turn about z, gripper; the rest is zero
STATE_DIM = 9  # hand position 3, quaternion 4, fingers 2
CAMERAS = ("agentview", "wrist")
VISION_TOKENS = 16  # per camera, after 2x2 space-to-depth of 8x8


class TokenMerge(nn.Module):
    """[B,64,C] -> [B,16,d]: four neighbouring tokens become one."""

    def __init__(self, width: int, d: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(4 * width, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        side = int(n**0.5)
        x = self.norm(x).view(b, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        return self.mix(x.reshape(b, n // 4, 4 * c))


class Attention(nn.Module):
    """x [B,T,d] attends to memory [B,S,d]; mask bool [B,1,1,S] or None."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        b, t, d = x.shape
        q = self.query(x).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(memory).view(b, memory.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(a.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """Pre-norm: self-attention (optional), cross-attention to the memory, feed-forward."""

    def __init__(self, d: int, heads: int, attend_to_self: bool):
        super().__init__()
        self.self_norm = nn.LayerNorm(d) if attend_to_self else None
        self.self_attention = Attention(d, heads) if attend_to_self else None
        self.cross_norm, self.cross_attention = nn.LayerNorm(d), Attention(d, heads)
        self.ff_norm = nn.LayerNorm(d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.self_attention is not None:
            y = self.self_norm(x)
            x = x + self.self_attention(y, y)
        x = x + self.cross_attention(self.cross_norm(x), memory, mask)
        return x + self.ff(self.ff_norm(x))


class FusionHead(nn.Module):
    """features: per camera [B,64,112]; language [B,L,width] with mask bool [B,L]; state f32 [B,9] raw.
    -> actions [B,H,len(PREDICTED)] (in robot units, not clamped)."""

    def __init__(self, vision_width: int, language_width: int, d: int = 96, heads: int = 4, layers: int = 3):
        super().__init__()
        self.merge = nn.ModuleList([TokenMerge(vision_width, d) for _ in CAMERAS])
        self.positions = nn.Parameter(torch.randn(len(CAMERAS), VISION_TOKENS, d) * 0.2)
        self.language = nn.Sequential(nn.Linear(language_width, d), nn.LayerNorm(d))
        self.state = nn.Sequential(nn.Linear(STATE_DIM, d), nn.GELU(), nn.Linear(d, d))
        self.ground = Block(d, heads, attend_to_self=False)
        self.queries = nn.Parameter(torch.randn(CHUNK // PER_QUERY, d) * 0.2)
        self.decoder = nn.ModuleList([Block(d, heads, attend_to_self=True) for _ in range(layers)])
        self.norm, self.out = nn.LayerNorm(d), nn.Linear(d, PER_QUERY * len(PREDICTED))
        self.register_buffer("state_mean", torch.zeros(STATE_DIM))
        self.register_buffer("state_std", torch.ones(STATE_DIM))

    def forward(self, features: list[torch.Tensor], language: torch.Tensor, mask: torch.Tensor,
                state: torch.Tensor) -> torch.Tensor:
        return self.actions(self.decode(features, language, mask, state))

    def decode(self, features: list[torch.Tensor], language: torch.Tensor, mask: torch.Tensor,
               state: torch.Tensor) -> torch.Tensor:
        """Decoded queries [B, H / PER_QUERY, d]."""
        b = state.shape[0]
        seen = torch.cat([m(f) + p for m, f, p in zip(self.merge, features, self.positions, strict=True)], 1)
        words = self.language(language)
        seen = self.ground(seen, words, mask[:, None, None, :])
        body = self.state((state - self.state_mean) / self.state_std)[:, None]
        memory = torch.cat([seen, words, body], 1)
        always = torch.ones(b, seen.shape[1], dtype=torch.bool)
        keep = torch.cat([always, mask, always[:, :1]], 1)[:, None, None, :]
        x = self.queries.expand(b, -1, -1) + body
        for block in self.decoder:
            x = block(x, memory, keep)
        return self.norm(x)

    def actions(self, decoded: torch.Tensor) -> torch.Tensor:
        return self.out(decoded).view(decoded.shape[0], CHUNK, len(PREDICTED))
