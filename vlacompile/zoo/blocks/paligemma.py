"""PaliGemma (Beyer et al. 2024, arXiv 2407.07726): SigLIP, a projection, and Gemma on a prefix that attends both ways.
Weights are named as in transformers' PaliGemmaModel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from vlacompile.frontends.decoding import SlotCache, up_to_end
from vlacompile.frontends.transformer import added
from vlacompile.zoo.blocks.language_model import LanguageModel, LanguageSizes
from vlacompile.zoo.blocks.siglip import SO400M, Siglip, gelu
from vlacompile.zoo.blocks.vision_tower import TowerSizes

END = 1  # the token <eos>


GEMMA_2B = LanguageSizes(2048, 18, 8, 1, 16384, 257152, 256, plus_one=True, activation=gelu)


@dataclass(frozen=True)
class PaliGemmaSizes:
    vision: TowerSizes = SO400M
    language: LanguageSizes = GEMMA_2B


SMALL = PaliGemmaSizes(TowerSizes(32, 2, 4, 64, 14, 28), replace(
    GEMMA_2B, width=32, depth=2, heads=4, hidden=64, vocabulary=400, head_dim=8))


class PaliGemma(nn.Module):
    """The logits are read by the embedding's own rows."""

    def __init__(self, sizes: PaliGemmaSizes):
        super().__init__()
        self.vision_tower = nn.ModuleDict({"vision_model": Siglip(sizes.vision)})
        self.multi_modal_projector = nn.ModuleDict({"linear": nn.Linear(sizes.vision.width, sizes.language.width)})
        self.language_model = LanguageModel(sizes.language)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """f32 [1,3,side,side] in [-1, 1] -> [1,patches,width]"""
        return self.multi_modal_projector["linear"](self.vision_tower["vision_model"](pixels))

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.language_model.embed_tokens(tokens) * math.sqrt(self.language_model.sizes.width)

    def write(self, prefix: torch.Tensor, there: torch.Tensor, most: int, chosen: Sequence[int] | None = None,
              skipped: int = 0) -> torch.Tensor:
        """The most probable tokens i64 [1,most] behind a prefix: up to END, and zeros behind it.

        prefix [1,n,width] and which of it is no padding, bool [1,n], on the right. chosen: the ids of the only tokens
        that may be written. skipped: positions between the prefix and the first token.
        """
        language, cache, count = self.language_model, SlotCache(most - 1), there.sum(-1, keepdim=True)
        hidden = language(prefix, added(there[:, None] & there[:, :, None]), there.cumsum(-1) - 1, cache)
        last = (torch.arange(prefix.shape[1])[None] == count - 1).to(hidden.dtype)[:, None] @ hidden
        rows = language.embed_tokens.weight if chosen is None else language.embed_tokens.weight[torch.tensor(chosen)]
        end = END if chosen is None else chosen.index(END)
        factor = math.sqrt(language.sizes.width)

        def choose(hidden: torch.Tensor, k: int) -> torch.Tensor:
            return F.linear(hidden, rows).argmax(-1)

        written = up_to_end(language, lambda row: F.embedding(row, rows) * factor, choose, choose(last, 0), cache,
                            there, most, end, skipped)
        ids = written if chosen is None else torch.tensor(chosen)[written.clamp(min=0)]
        return torch.where(written < 0, 0, ids)
