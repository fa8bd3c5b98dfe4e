"""A tokenizer as frozen data: its steps, vocabulary, and the ids added around a text.

`read_tokenizer_json.py` makes it from a `tokenizer.json`, `table.py` packs it into the table that libvlart reads. Must
not know either, nor policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlacompile.policy.text import Fit


@dataclass(frozen=True)
class Span:
    """Code points first..last. action: for a "map" step a key of vocabulary.SPAN_ACTIONS; for an "order" or "compose"
    step the combining class; for a split the sum of vocabulary.CHAR_CLASSES. argument: the offset, or the replacement
    code points."""

    first: int
    last: int
    action: str | int
    argument: int | tuple[int, ...] = 0


@dataclass(frozen=True)
class Step:
    """kind: a key of vocabulary.TEXT_STEPS. option: see layout.STEP."""

    kind: str
    spans: tuple[Span, ...] = field(default=(), repr=False)
    find: str = ""
    put: str = ""
    option: int = 0


@dataclass(frozen=True)
class Added:
    """An added token, which is matched in the text itself; after normalisation if it is `normalised`."""

    text: str
    id: int
    normalised: bool
    strip_left: bool
    strip_right: bool


@dataclass(frozen=True)
class WordPiece:
    """words: {token: id} at the start of a word; rest: the same for continuations, without their prefix mark."""

    words: dict[bytes, int]
    rest: dict[bytes, int]
    longest_word: int  # characters


@dataclass(frozen=True)
class Bpe:
    """letters: {character: id}, or empty: bytes are merged. byte_ids: 256 ids, or empty. words: whole words that are
    not split. merges: (left id, right id, merged id), by rank."""

    letters: dict[str, int]
    byte_ids: tuple[int | None, ...]
    words: dict[bytes, int]
    merges: tuple[tuple[int, int, int], ...] = field(repr=False)
    fuse_unknown: bool


@dataclass(frozen=True)
class Tokenizer:
    """normalise, transform, split: steps before and after matching the `normalised` added tokens, and the split into
    words. prefix, suffix: ids around those of the text. unknown: None: text without a token is dropped."""

    normalise: tuple[Step, ...]
    transform: tuple[Step, ...]
    split: tuple[Step, ...]
    added: tuple[Added, ...]
    model: WordPiece | Bpe
    unknown: int | None
    token_count: int
    prefix: tuple[int, ...] = field(default=())
    suffix: tuple[int, ...] = field(default=())
    fit: Fit = Fit()  # noqa: RUF009  frozen
    ending: str = ""  # appended to a text that does not end with it
