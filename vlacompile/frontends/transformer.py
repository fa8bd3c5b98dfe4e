"""Parts of decoder-only transformers in plain PyTorch, computed as transformers' eager code computes them.

Names of weights are those of transformers' decoders. Must not know model families.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Rope = tuple[torch.Tensor, torch.Tensor]  # cosines and sines [1,n,head_dim]


def rotary(positions: torch.Tensor, width: int, base: float) -> Rope:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of positions [1,n], halves rotated."""
    frequencies = 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = positions[..., None].float() * frequencies
    both = torch.cat([angles, angles], -1)
    return both.cos(), both.sin()


def rotated(x: torch.Tensor, rope: Rope) -> torch.Tensor:
    """x [1,heads,n,head_dim]"""
    cosine, sine = (part.unsqueeze(1) for part in rope)
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float) \
        -> torch.Tensor:
    """q [1,heads,n,d], k and v [1,kv_heads,m,d] -> [1,n,heads,d]. mask: what is added to the scores, or None."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (x[:, :, None].expand(-1, -1, groups, -1, -1).reshape(1, q.shape[1], x.shape[2], x.shape[3])
                for x in (k, v))
    scores = torch.matmul(q, k.transpose(2, 3)) * scaling
    scores = scores if mask is None else scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v).transpose(1, 2)


def added(visible: torch.Tensor) -> torch.Tensor:
    """bool [1,n,m] -> f32 [1,1,n,m]: 0 where visible, a large negative number elsewhere."""
    return torch.where(visible[:, None], 0.0, torch.finfo(torch.float32).min)


class Attention(nn.Module):
    """The projections of grouped-query attention. heads and key/value heads of head_dim each. bias: of queries, keys
    and values."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, bias: bool = False):
        super().__init__()
        self.head_dim, self.scaling = head_dim, head_dim**-0.5
        self.q_proj = nn.Linear(width, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)


def projections(attention: nn.Module, x: torch.Tensor, rope: Rope) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [1,heads,n,head_dim] of x [1,n,width]; queries and keys rotated, and before normalised
    where the attention has norms for it. attention: `Attention`, or transformers' own module."""
    shape = (*x.shape[:-1], -1, attention.head_dim)
    q, k, v = (p(x).view(shape) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    return rotated(q.transpose(1, 2), rope), rotated(k.transpose(1, 2), rope), v.transpose(1, 2)


class GatedMlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))
