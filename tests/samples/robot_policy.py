"""A policy whose actions say what they were made of: the camera's mean, the instruction, the joints, and the row."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

import vlacompile as vc

WORDS = ["[UNK]", "[PAD]", "put", "the", "bowl", "on", "plate", "cup"]
ROWS, HEIGHT, WIDTH = 8, 16, 24
ROW = 1 / 128  # what a row adds to each joint


class Telling(nn.Module):
    """Action [7]: the frame's mean by channel, the sum of the token ids, and three joints; of row k, k * ROW more."""

    def __init__(self, sign: int = 1) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), 1)
        self.words.weight.data = sign * torch.arange(len(WORDS))[:, None].float()

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, image: torch.Tensor, state: torch.Tensor) -> dict:
        said = (self.words(tokens)[..., 0] * mask).sum(1, keepdim=True)
        seen = image.float().mean((1, 2)) / 256
        action = torch.cat([seen, said, state], 1)[:, None] + torch.arange(ROWS)[None, :, None] * ROW
        return {"action": action}


def telling(sign: int = 1) -> vc.Policy:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    task, seen = vc.Source("task"), vc.Source("observation")
    return vc.Policy(
        "telling", Telling(sign).eval(), {"tokens": task, "mask": task, "image": seen, "state": seen},
        {"tokens": torch.zeros(1, 8, dtype=torch.int64), "mask": torch.ones(1, 8, dtype=torch.bool),
         "image": torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8), "state": torch.rand(1, 3)},
        texts={"tokens": vc.Text(tokenizer.to_str(), "mask", vc.Fit(pad=1), examples=("put the bowl on the plate",))})


def pair() -> vc.Policy:
    """Two backbones; heavy's fourth number is light's, negative."""
    return vc.join({"light": telling(), "heavy": telling(-1)}, "pair")
