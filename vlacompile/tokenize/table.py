"""Packs a Tokenizer into the table that libvlart reads (layout.TOKENIZER_SECTIONS)."""

from __future__ import annotations

import numpy as np

from vlacompile.tokenize.characters import compositions
from vlacompile.tokenize.tokenizer import Added, Bpe, Step, Tokenizer, WordPiece
from vlart import vocabulary
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionWriter


class _Table(SectionWriter):
    """The entries of all vocabularies are stored contiguously, before all other strings."""

    def __init__(self) -> None:
        super().__init__(layout.TOKENIZER_MAGIC, layout.TOKENIZER_SECTIONS)
        self.entries: list[tuple[bytes, int]] = []
        self.rest = bytearray()  # other strings

    def vocabulary(self, ids: dict[bytes, int]) -> dict[str, int]:
        begin = len(self.entries)
        self.entries += sorted(ids.items())
        return {"begin": begin, "count": len(ids)}

    def other(self, text: str) -> tuple[int, int]:
        """(offset after the entries, bytes)"""
        begin = len(self.rest)
        self.rest += text.encode()
        return begin, len(self.rest) - begin

    def array(self, section: str, values) -> None:
        self.records[section] = [np.asarray(values, "<u4").tobytes()]


def tokenizer_bytes(tokenizer: Tokenizer) -> bytes:
    """The content of a bundle's tokenizer file."""
    table = _Table()
    ranges = _model(table, tokenizer.model)
    for name, normalised in (("raw", False), ("normalised", True)):
        ranges[name] = _added(table, [a for a in tokenizer.added if a.normalised == normalised])
    steps = (*tokenizer.normalise, *tokenizer.transform, *tokenizer.split)
    if any(s.kind == "compose" for s in steps):
        for first, second, composed in compositions():
            table.add("compositions", first=first, second=second, composed=composed)
    entry_bytes = sum(len(text) for text, _ in table.entries)
    for step in steps:
        _step(table, step, entry_bytes)
    ending, ending_bytes = table.other(tokenizer.ending)
    table.array("entry_begins", np.cumsum([0, *(len(text) for text, _ in table.entries)]))
    table.array("entry_ids", [i for _, i in table.entries])
    table.blob(b"".join(text for text, _ in table.entries) + bytes(table.rest))
    model, fit = tokenizer.model, tokenizer.fit
    ids = {"prefix": tokenizer.prefix, "suffix": tokenizer.suffix,
           "byte": [_or_none(i) for i in model.byte_ids] if isinstance(model, Bpe) else ()}
    for name, numbers in ids.items():
        begin, count = table.scalars("indices", numbers)
        ranges[name] = {"begin": begin, "count": count}
    table.add("tokenizer", model=vocabulary.TOKEN_MODELS["bpe" if isinstance(model, Bpe) else "wordpiece"],
              token_count=tokenizer.token_count, unknown=_or_none(tokenizer.unknown),
              fuse_unknown=int(isinstance(model, Bpe) and model.fuse_unknown),
              longest_word=model.longest_word if isinstance(model, WordPiece) else 0,
              normalise=len(tokenizer.normalise), transform=len(tokenizer.transform), split=len(tokenizer.split),
              pad=fit.pad, pad_side=vocabulary.TEXT_SIDES[fit.pad_side],
              truncate=layout.NONE if fit.truncate is None else vocabulary.TEXT_SIDES[fit.truncate],
              ending=entry_bytes + ending, ending_bytes=ending_bytes,
              **{f"{name}_{key}": value for name, r in ranges.items() for key, value in r.items()})
    if isinstance(model, Bpe):
        _merges(table, model, tokenizer.token_count)
    return table.to_bytes()


def _or_none(index: int | None) -> int:
    return layout.NONE if index is None else index


def _model(table: _Table, model: WordPiece | Bpe) -> dict[str, dict[str, int]]:
    if isinstance(model, WordPiece):
        names = {"word": model.words, "rest": model.rest, "letter": {}}
    else:
        names = {"word": model.words, "rest": {}, "letter": {t.encode(): i for t, i in model.letters.items()}}
    return {name: table.vocabulary(ids) for name, ids in names.items()}


def _added(table: _Table, added: list[Added]) -> dict[str, int]:
    """Of tokens that are equal after normalisation the first one is matched, as in the original."""
    of: dict[bytes, int] = {}
    for token in added:
        index = table.add("added", id=token.id, strip_left=int(token.strip_left), strip_right=int(token.strip_right))
        of.setdefault(token.text.encode(), index)
    return table.vocabulary(of)


def _step(table: _Table, step: Step, behind: int) -> None:
    begin = len(table.records["spans"])
    kept: dict[tuple[int, ...], int] = {}
    for span in step.spans:
        argument, action = span.argument, span.action
        if action == "sequence":
            if argument not in kept:
                kept[argument] = table.scalars("indices", [len(argument), *argument])[0]
            argument = kept[argument]
        table.add("spans", first=span.first, last=span.last, argument=argument,
                  action=vocabulary.SPAN_ACTIONS[action] if isinstance(action, str) else action)
    (find, find_bytes), (put, put_bytes) = table.other(step.find), table.other(step.put)
    table.add("steps", kind=vocabulary.TEXT_STEPS[step.kind], option=step.option, span_begin=begin,
              span_count=len(step.spans), find=behind + find, find_bytes=find_bytes, put=behind + put,
              put_bytes=put_bytes)


def _merges(table: _Table, model: Bpe, tokens: int) -> None:
    """By left token, then by right token. For a duplicate pair the later rank counts, as in the original."""
    rank_of = {(left, right): (rank, both) for rank, (left, right, both) in enumerate(model.merges)}
    rows = np.zeros(tokens + 1, np.int64)
    ordered = sorted(rank_of.items())
    for (left, _), _ in ordered:
        rows[left + 1] += 1
    table.array("merge_rows", np.cumsum(rows))
    table.array("merge_rights", [right for (_, right), _ in ordered])
    table.array("merge_ranks", [rank for _, (rank, _) in ordered])
    table.array("merge_ids", [both for _, (_, both) in ordered])
