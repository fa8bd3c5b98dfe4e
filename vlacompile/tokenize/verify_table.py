"""Compares a tokenizer's table in libvlart with the original library, id by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlacompile.tokenize.corpus import characters, corpus
from vlacompile.tokenize.read_tokenizer_json import HOST
from vlacompile.tokenize.tokenizer import Tokenizer
from vlart.errors import ParityError
from vlart.runtime.tokenizer import RuntimeTokenizer

SHOWN = 24  # ids shown per list
BATCH = 1000  # texts per batch


@dataclass(frozen=True)
class Checked:
    texts: int
    ids: int

    def __str__(self) -> str:
        return f"{self.texts} texts, {self.ids} ids, equal to the original's"


def check_tokenizer(text: str, tokenizer: Tokenizer, table: bytes, texts: tuple[str, ...] = (),
                    stride: int = 1) -> Checked:
    """text: the tokenizer.json. texts: instructions that the policy is known to be used with. stride: see `characters`.
    Raises ParityError with the text, both lists of ids and the position where they differ."""
    from tokenizers import Tokenizer as Original

    original = Original.from_str(text)
    added = tuple(token.content for _, token in sorted(original.get_added_tokens_decoder().items()))
    original.no_padding()
    original.no_truncation()
    return compare_ids(original, table, [*corpus(added, texts), *characters(stride)], tokenizer.ending)


def compare_ids(original, table: bytes, texts: Iterable[str], ending: str = "") -> Checked:
    """original: the tokenizer loaded by `tokenizers`, without padding and truncation. ending: as Tokenizer.ending.
    Raises ParityError."""
    texts = list(texts)
    runtime = RuntimeTokenizer(table, max(4096, *(len(t.encode()) for t in texts)))
    ids = 0
    for i in range(0, len(texts), BATCH):
        part = texts[i: i + BATCH]
        whole = [t if t.endswith(ending) else t + ending for t in part]
        for text, encoded in zip(part, original.encode_batch(whole), strict=True):
            got, want = runtime.encode(text), encoded.ids
            ids += len(want)
            if got != want:
                raise _differs(text, got, want)
    return Checked(len(texts), ids)


def _differs(text: str, got: list[int], want: list[int]) -> ParityError:
    first = next((i for i, (g, w) in enumerate(zip(got, want, strict=False)) if g != w), min(len(got), len(want)))
    begin = max(0, first - SHOWN // 2)

    def shown(ids: list[int]) -> str:
        part = ids[begin: begin + SHOWN]
        return f"{'... ' if begin else ''}{part}{' ...' if begin + SHOWN < len(ids) else ''}"

    return ParityError(
        "the tokenizer's table gives other ids than the original", where=f"text {text[:80]!r}",
        why=f"id {first}: {shown(got)} instead of {shown(want)}",
        fix="report the text and the tokenizer.json; until then, " + HOST)
