"""What a tokenizer does, as frozen data: steps, vocabulary and what surrounds the ids.

`read.py` makes it of a `tokenizer.json`, `binary.py` packs it into the table that libvlart reads. Knows nothing of
either, nor of policies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vlacompile.policy.text import Fit


@dataclass(frozen=True)
class Span:
    """Code points first..last. action: of a "map" step a key of vocabulary.SPAN_ACTIONS; of an "order" or "compose"
    step the combining class; of a cut the sum of vocabulary.CHAR_CLASSES. argument: what is added, or the code
    points."""

    first: int
    last: int
    action: str | int
    argument: int | tuple[int, ...] = 0


@dataclass(frozen=True)
class Step:
    """kind: a key of vocabulary.TEXT_STEPS. option: as layout.STEP says."""

    kind: str
    spans: tuple[Span, ...] = field(default=(), repr=False)
    find: str = ""
    put: str = ""
    option: int = 0


@dataclass(frozen=True)
class Added:
    """A token that is looked for in the text itself: in `text`, after normalisation where it is `normalised`."""

    text: str
    id: int
    normalised: bool
    strip_left: bool
    strip_right: bool


@dataclass(frozen=True)
class WordPiece:
    """words: {token: id}; rest: the same of what follows the beginning of a word, without its mark."""

    words: dict[bytes, int]
    rest: dict[bytes, int]
    longest_word: int  # characters


@dataclass(frozen=True)
class Bpe:
    """letters: {character: id}, or empty: bytes are merged. byte_ids: 256 ids, or empty. words: whole words that are
    not merged. merges: (left id, right id, id of both), by rank."""

    letters: dict[str, int]
    byte_ids: tuple[int | None, ...]
    words: dict[bytes, int]
    merges: tuple[tuple[int, int, int], ...] = field(repr=False)
    fuse_unknown: bool


@dataclass(frozen=True)
class Tokenizer:
    """normalise, transform, split: steps before and after the cut at `normalised` added tokens, and into words.
    prefix, suffix: ids around those of the text. unknown: None: what has no token is left out."""

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
    ending: str = ""  # put behind a text that does not end with it
