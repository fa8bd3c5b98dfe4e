"""BERT's encoder (Devlin et al. 2019, arXiv 1810.04805) without pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-12


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.attention_output = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.output_norm = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.intermediate, self.output = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        _, n, width = x.shape
        q, k, v = (p(x).view(1, n, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(1, n, width)
        x = self.attention_norm(x + self.attention_output(seen))
        return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))


class Bert(nn.Module):
    """tokens i64 [1,n] and their padding mask bool [1,n] -> f32 [1,n,width]"""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, hidden: int = 3072, vocabulary: int = 30522,
                 places: int = 512):
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(vocabulary, width), nn.Embedding(places, width)
        self.token_type_embeddings, self.embedding_norm = nn.Embedding(2, width), nn.LayerNorm(width, EPS)
        self.layers = nn.ModuleList(BertLayer(width, heads, hidden) for _ in range(depth))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1])[None]
        x = (self.word_embeddings(tokens) + self.token_type_embeddings(torch.zeros_like(places))
             + self.position_embeddings(places))
        x, keep = self.embedding_norm(x), mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, keep)
        return x
