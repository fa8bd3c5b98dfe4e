"""MPT's decoder (MosaicML 2023): ALiBi in the place of positions, no biases; weights named as in transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

MAX_BIAS = 8


class MptLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attn = nn.ModuleDict({"Wqkv": nn.Linear(width, 3 * width, bias=False),
                                   "out_proj": nn.Linear(width, width, bias=False)})
        self.ffn = nn.ModuleDict({"up_proj": nn.Linear(width, 4 * width, bias=False),
                                  "down_proj": nn.Linear(4 * width, width, bias=False)})

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """x [1,n,width]. bias: what is added to the scores [1,heads,n,n]."""
        _, n, width = x.shape
        q, k, v = (p.view(1, n, self.heads, -1).transpose(1, 2)
                   for p in self.attn["Wqkv"](self.norm_1(x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(1, n, width)
        x = x + self.attn["out_proj"](seen)
        return x + self.ffn["down_proj"](F.gelu(self.ffn["up_proj"](self.norm_2(x))))


def alibi(visible: torch.Tensor, places: torch.Tensor, heads: int) -> torch.Tensor:
    """visible bool [1,n,n], places i64 [n] -> what is added to the scores [1,heads,n,n]: the further back a key, the
    less (Press et al. 2022, arXiv 2108.12409), and of what is not visible nothing. heads: a power of two."""
    slopes = 2.0 ** (-MAX_BIAS / heads * torch.arange(1, heads + 1))
    far = (places[None] - places[:, None]) * slopes.view(1, heads, 1, 1)
    return torch.where(visible[:, None], far, torch.finfo(torch.float32).min)
