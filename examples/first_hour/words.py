"""The same with an instruction."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import vlacompile as vc

WORDS = ["[UNK]", "[PAD]", "put", "the", "bowl", "on", "plate"]
tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
words, eye, head = torch.nn.Embedding(len(WORDS), 32), torch.nn.Conv2d(3, 32, 8, 8), torch.nn.Linear(71, 16 * 7)


def act(tokens, mask, image, state):
    said, seen = (words(tokens) * mask[..., None]).sum(1), eye(image.permute(0, 3, 1, 2) / 255).relu().mean((2, 3))
    return {"action": head(torch.cat([said, seen, state], 1)).tanh().view(1, 16, 7)}


def make():
    task, seen = vc.Source("task"), vc.Source("observation")
    return vc.Policy("words", act, {"tokens": task, "mask": task, "image": seen, "state": seen},
                     {"tokens": torch.zeros(1, 8, dtype=torch.int64), "mask": torch.ones(1, 8, dtype=torch.bool),
                      "image": torch.zeros(1, 96, 96, 3, dtype=torch.uint8), "state": torch.rand(1, 7)},
                     texts={"tokens": vc.Text(tokenizer.to_str(), "mask", vc.Fit(pad=1), examples=("put the bowl",))})
