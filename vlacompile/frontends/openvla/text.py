"""OpenVLA's prompt: the instruction within a fixed question, and an empty token behind it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vlacompile.frontends.openpi.prompt import template
from vlacompile.frontends.tokenizer_files import TOKENIZER, encode, tokenizer_json
from vlacompile.policy.text import Fit, Text
from vlart.errors import SourceError

LENGTH = 64  # tokens of the padded prompt; the padding is masked
BEFORE, AFTER = "In: What action should the robot take to ", "?\nOut:"
BEGIN, EMPTY, PAD = "<s>", "▁", "<PAD>"
EXAMPLE_INSTRUCTION = "pick up the object"


def prompt_text(path: Path, mask: str) -> Text:
    """How the runtime makes the prompt's tokens of an instruction. Raises SourceError."""
    content, pad = _encoder(path)
    return Text(content, mask, Fit(pad, "right"), AFTER, examples=(EXAMPLE_INSTRUCTION,))


def tokens_of(path: Path, instruction: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids int64 [1,L] and padding mask bool [1,L]. Raises SourceError."""
    content, pad = _encoder(path)
    return encode(content, instruction + AFTER, LENGTH, pad, cut=False)


def _encoder(path: Path) -> tuple[str, int]:
    """The checkpoint's tokenizer with the prompt around a text that ends with AFTER, and the id of padding."""
    document = json.loads(tokenizer_json(path / TOKENIZER, pieces=True))
    vocabulary = document["model"]["vocab"] | {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    missing = [t for t in (BEGIN, EMPTY, PAD) if t not in vocabulary]
    if missing:
        raise SourceError(f"the tokenizer has no token {missing[0]}", where=str(path / TOKENIZER),
                          why="the policy was trained with Llama 2's, and a token for padding",
                          fix="copy the checkpoint again, completely")
    own = document.get("normalizer")
    first = [{"type": "Lowercase"},
             {"type": "Replace", "pattern": {"String": AFTER.lower()}, "content": AFTER},
             {"type": "Prepend", "prepend": BEFORE}]
    document["normalizer"] = {"type": "Sequence", "normalizers": [*first, *([own] if own else [])]}
    document["post_processor"] = template(BEGIN, EMPTY, vocabulary)
    return json.dumps(document), vocabulary[PAD]
