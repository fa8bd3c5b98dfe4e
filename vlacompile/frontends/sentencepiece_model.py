"""A SentencePiece model (`tokenizer.model`) -> tokenizer.json with the same ids, for models that merge pieces.

Read without the package: the file is one protocol-buffers message (sentencepiece_model.proto), of which a few fields
say everything. What a model adds around a text is not in it. Must not know models.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlart.errors import SourceError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces
BPE, MARK = 2, "▁"  # of the types of models; what stands for a space
_MODEL_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how protocol buffers write a value

Fields = dict[int, list]


@dataclass(frozen=True)
class Model:
    """pieces: (text, score, type), by id. trainer, normalizer: the fields of both specifications that the file has."""

    pieces: list[tuple[str, float, int]]
    trainer: Fields
    normalizer: Fields


def from_sentencepiece(file: Path) -> str:
    """The text of a tokenizer.json. Raises SourceError for a model whose ids would not be the same."""
    try:
        model = _read(file.read_bytes())
    except (OSError, ValueError, LookupError, AttributeError, TypeError, struct.error) as error:
        # of other bytes: fields that are missing, or of another type
        raise SourceError("the SentencePiece model cannot be read", where=str(file),
                          why=f"{type(error).__name__}: {error}",
                          fix=f"copy {file.name} again, completely") from error
    if wrong := _unlike(model):
        raise SourceError("the SentencePiece model cannot be converted", where=str(file), why=wrong,
                          fix="give its tokenizer.json in its place, as transformers' save_pretrained writes it")
    return json.dumps(_document(model, _added_beside(file)))


def _read(content: bytes) -> Model:
    """Raises many kinds of errors for what is no such message."""
    fields = _fields(content)
    pieces = []
    for one in fields.get(1, ()):
        found = _fields(one)
        pieces.append((found[1][0].decode("utf-8"), struct.unpack("<f", found.get(2, [bytes(4)])[0])[0],
                       found.get(3, [NORMAL])[0]))
    if not pieces or not any(kind == UNKNOWN for _, _, kind in pieces):
        raise ValueError("it has no pieces, or none for what is unknown")
    return Model(pieces, _fields(b"".join(fields.get(2, ()))), _fields(b"".join(fields.get(3, ()))))


def _fields(message: bytes) -> Fields:
    found: Fields = {}
    for number, value in _values(message):
        found.setdefault(number, []).append(value)
    return found


def _values(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        kind = key & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _number(message, place)
        else:
            if kind == _BYTES:
                size, place = _number(message, place)
            elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
                size = 4 if kind == _FOUR_BYTES else 8
            else:
                raise ValueError(f"it is no message of protocol buffers: a value of type {kind} at byte {place}")
            if place + size > len(message):
                raise ValueError("it is cut off")
            value, place = message[place: place + size], place + size
        yield key >> 3, value


def _number(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _unlike(model: Model) -> str | None:
    """Why its ids would not be the same."""
    kind = model.trainer.get(3, [1])[0]
    if kind != BPE:
        return f"it is of type {_MODEL_KINDS.get(kind, kind)}; the conversion is exact for bpe, which merges pieces"
    if model.normalizer.get(2, [b""])[0] or model.normalizer.get(6, [b""])[0]:
        name = model.normalizer.get(1, [b"?"])[0].decode("utf-8", "replace")
        return f"it changes characters by a table of its own ({name}) before it splits them"
    if model.normalizer.get(4, [1])[0]:
        return "it drops spaces that are repeated or at the ends (remove_extra_whitespaces)"
    if not model.normalizer.get(5, [1])[0] or model.trainer.get(24, [0])[0]:
        return "its spaces are written in another way than before a word"
    texts = [text for text, _, _ in model.pieces]
    if len(set(texts)) < len(texts):
        return "two of its pieces are the same text"
    if any(type_ == UNUSED for _, _, type_ in model.pieces):
        return "it has pieces that are not to be used"
    return None


def _document(model: Model, beside: dict[str, int]) -> dict:
    ids = {text: i for i, (text, _, _) in enumerate(model.pieces)}
    unknown = next(text for text, _, kind in model.pieces if kind == UNKNOWN)
    marks: list[dict] = [{"type": "Replace", "pattern": {"String": " "}, "content": MARK}]
    if model.normalizer.get(3, [1])[0]:  # add_dummy_prefix
        marks.insert(0, {"type": "Prepend", "prepend": MARK})
    whole = {text: i for text, i in ids.items() if model.pieces[i][2] == USER_DEFINED}
    return {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "pre_tokenizer": None,
            "decoder": None, "normalizer": {"type": "Sequence", "normalizers": marks},
            "added_tokens": [_added(text, i, True) for text, i in whole.items()]
            + [_added(text, i, False) for text, i in beside.items() if text not in ids],
            "model": {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "ignore_merges": False,
                      "byte_fallback": any(kind == BYTE for _, _, kind in model.pieces), "vocab": ids,
                      "merges": _merges(model, ids)}}


def _added(text: str, i: int, normalised: bool) -> dict:
    """A token that a text is searched for before anything is merged. normalised: with the marks for spaces."""
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalised,
            "special": not normalised}


def _merges(model: Model, ids: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece joins the two neighbours whose piece has the best score. Here every way to make a piece of two is a
    merge, by the score of the piece; ways to make the same piece by their parts."""
    of_text = {text: score for text, score, kind in model.pieces if kind == NORMAL}
    parts = of_text.keys()
    found = []
    for text, score in of_text.items():
        ways = [(text[:k], text[k:]) for k in range(1, len(text)) if text[:k] in parts and text[k:] in parts]
        found += [(-score, ids[text], ids[left], ids[right], left, right) for left, right in ways]
    return [(left, right) for *_, left, right in sorted(found)]


def _added_beside(file: Path) -> dict[str, int]:
    """Tokens that transformers keeps beside the model, in added_tokens.json: {text: id}."""
    beside = file.parent / "added_tokens.json"
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        return {str(text): int(i) for text, i in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SourceError("added_tokens.json cannot be read", where=str(beside), why=str(error),
                          fix="copy the checkpoint again, completely") from error
