"""Action decoding, from a policy's first output to actions: `Policy.decoder` and `Policy.guidance`.

Owns the declarations, their checks, and the tables and coefficients of the usual conventions. Decoding runs on the
host CPU after the graph. Token policies need it, and policies whose actions are relative to the state at the replan; a
policy that un-normalises inside its own function does not. H: steps of a chunk, D: dimensions of an
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vlart.errors import SourceError, nearest
from vlart.vocabulary import LENGTHS, OUTSIDES, SYMBOLS


def _refuse(what: str, where: str, why: str, fix: str = "correct the decoder") -> None:
    raise SourceError(what, where=f"vlacompile.policy.action_decoding.{where}", why=why, fix=fix)


def _known(value: str, known: Iterable[str], where: str) -> None:
    if value not in known:
        _refuse(f'"{value}" is not known', where, nearest(value, known))


def _direction(direction: int, where: str) -> None:
    if direction not in (1, -1):
        _refuse(f"direction = {direction}", where, "rows are counted up (1) or down (-1) from the first token")


@dataclass(frozen=True)
class Lookup:
    """Tokens [H,D] or [H*D] -> numbers: tables[d][direction * (token - first)], one table per dimension.

    first: the first token, for all dimensions or per dimension. outside: for a token without a row, "clip" it to the
    nearest row, emit "zero", or "refuse" the chunk.
    """

    tables: tuple[tuple[float, ...], ...]
    first: int | tuple[int, ...] = 0
    direction: int = 1
    outside: str = "clip"

    def __post_init__(self) -> None:
        _direction(self.direction, "Lookup")
        _known(self.outside, ("clip", "zero", "refuse"), "Lookup(outside=...)")
        if not self.tables or not all(self.tables) or not all(math.isfinite(x) for t in self.tables for x in t):
            _refuse("a table is empty or not finite", "Lookup(tables=...)", "every dimension needs numbers")
        firsts = self.firsts
        if len(firsts) != len(self.tables) or not all(0 <= f < 2**32 for f in firsts):
            _refuse(f"first = {self.first}", "Lookup", "one token per dimension, not negative and below 2^32")

    @property
    def firsts(self) -> tuple[int, ...]:
        """[D]"""
        return (self.first,) * len(self.tables) if isinstance(self.first, int) else self.first


@dataclass(frozen=True)
class Pieces:
    """Token sequence -> H*D integers: every token stands for several symbols, as in byte-pair encoding.

    pieces: the symbols of every row; the row of a token is direction * (token - first). symbols: "utf8",
    bytes whose code points are the integers (a code point may span tokens), or "integers". offset: added to
    every integer. shape: (H, D). stop: the token that ends the sequence. outside: "refuse" or "skip" a token without
    a row. length: "exact" refuses a count other than H*D, "fit" pads with zeros or truncates.
    """

    pieces: tuple[tuple[int, ...], ...]
    shape: tuple[int, int]
    symbols: str = "integers"
    offset: int = 0
    first: int = 0
    direction: int = 1
    stop: int | None = None
    outside: str = "refuse"
    length: str = "exact"

    def __post_init__(self) -> None:
        _direction(self.direction, "Pieces")
        _known(self.outside, ("refuse", "skip"), "Pieces(outside=...)")
        _known(self.symbols, SYMBOLS, "Pieces(symbols=...)")
        _known(self.length, LENGTHS, "Pieces(length=...)")
        limit = 256 if self.symbols == "utf8" else 2**31
        if not self.pieces or not all(0 <= s < limit for p in self.pieces for s in p):
            _refuse("a piece is not a sequence of symbols", "Pieces(pieces=...)", f"symbols are 0..{limit - 1}")
        if min(self.shape) < 1 or not 0 <= self.first < 2**32 or (self.stop is not None and self.stop < 0):
            _refuse("shape, first or stop is out of range", "Pieces", f"{self.shape}, {self.first}, {self.stop}")


@dataclass(frozen=True)
class Basis:
    """Coefficients [H,D] -> steps [H,D]: matrix @ coefficients, matrix[H][H]."""

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.matrix or any(len(row) != len(self.matrix) for row in self.matrix):
            _refuse("the basis is not square", "Basis(matrix=...)", "it maps H coefficients to H steps")


@dataclass(frozen=True)
class Affine:
    """x * scale[d] + offset[d]."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.offset) or not all(map(math.isfinite, (*self.scale, *self.offset))):
            _refuse("scale and offset differ in length or are not finite", "Affine", "one pair per dimension")


@dataclass(frozen=True)
class Delta:
    """x + element[d] of the source `source`, as read when the chunk is decoded; None: x[d] is absolute already."""

    source: str
    element: tuple[int | None, ...]


@dataclass(frozen=True)
class Decoder:
    """Steps from the first output to actions, in order; for a token output, Lookup or Pieces comes first."""

    steps: tuple[Lookup | Pieces | Basis | Affine | Delta, ...]

    def __post_init__(self) -> None:
        if not self.steps or any(isinstance(s, Lookup | Pieces) for s in self.steps[1:]):
            _refuse("a token step is not the first step", "Decoder(steps=...)", "Lookup and Pieces can only come first")


@dataclass(frozen=True)
class Guidance:
    """Real-time chunking inside the graph: sources that the runtime fills at each replan.

    previous: source [1,H,N], the rest of the previous `chunk`, zero-padded. weights: source of H numbers, the
    prefix weights. chunk: output [1,H,N] that `previous` continues, before un-normalisation.
    """

    previous: str
    weights: str
    chunk: str


def shape_of(decoder: Decoder | None, dtype: str, dims: tuple[int, ...], where: str) -> tuple[int, int] | None:
    """(H, D) of the actions that the output `dtype[dims]` decodes to; None: the output is not an action chunk, and no
    decoder is declared. Raises SourceError when the decoder does not fit the output, or its steps do not fit each
    other."""
    chunk = (dims[1], dims[2]) if dtype == "f32" and len(dims) == 3 and dims[0] == 1 else None
    if decoder is None:
        return chunk
    head = decoder.steps[0]
    if isinstance(head, Lookup | Pieces) != (dtype in ("i32", "i64")):
        raise SourceError("the decoder does not read this output", where=where,
                          why=f"it is {dtype}{list(dims)}; {type(head).__name__} comes first",
                          fix="begin with Lookup or Pieces for i32 or i64 tokens, and only for these")
    if isinstance(head, Pieces):
        chunk = head.shape
    elif isinstance(head, Lookup):
        tokens, dim = math.prod(dims), len(head.tables)
        chunk = (tokens // dim, dim) if tokens and tokens % dim == 0 else None
    if chunk is None:
        raise SourceError("the decoder does not read this output", where=where,
                          why=f"{dtype}{list(dims)} is not [1,H,D]", fix="give a table per dimension")
    for step in decoder.steps:
        size, wanted = {Basis: lambda s: (len(s.matrix), chunk[0]), Affine: lambda s: (len(s.scale), chunk[1]),
                        Delta: lambda s: (len(s.element), chunk[1])}.get(type(step), lambda s: (0, 0))(step)
        if size != wanted:
            raise SourceError(f"{type(step).__name__} does not fit the chunk", where=where,
                              why=f"it is for {size}, the chunk is [{chunk[0]},{chunk[1]}]", fix="correct the decoder")
    return chunk


# ---- tables of Lookup

def lower_edges(low: float, high: float, bins: int) -> tuple[float, ...]:
    """`bins` numbers from low to high, inclusive: i / (bins - 1) * (high - low) + low."""
    return tuple(i / (bins - 1) * (high - low) + low for i in range(bins))


def centres(edges: Sequence[float]) -> tuple[float, ...]:
    """The midpoints of neighbouring edges: one fewer than there are edges."""
    return tuple((a + b) / 2 for a, b in itertools.pairwise(edges))


def classes(count: int) -> tuple[float, ...]:
    """0, 1, ...: for a dimension whose token index is its value."""
    return tuple(float(i) for i in range(count))


# ---- numbers of Basis and Affine

def inverse_dct(steps: int, scale: float = 1.0) -> Basis:
    """The orthonormal inverse DCT-II of coefficients that were multiplied by `scale`:
    a[n] = sum over k of c[k] * cos(pi * (2n + 1) * k / 2H) * q[k] / scale, c[0] = sqrt(1/H), c[k] = sqrt(2/H)."""
    n, k = np.arange(steps)[:, None], np.arange(steps)[None, :]
    norm = np.where(k == 0, math.sqrt(1 / steps), math.sqrt(2 / steps))
    matrix = norm * np.cos(math.pi * (2 * n + 1) * k / (2 * steps)) / scale
    return Basis(tuple(map(tuple, matrix.tolist())))


def from_mean_std(mean: Sequence[float], std: Sequence[float], *, mask: Sequence[bool] | None = None,
                  epsilon: float = 0.0) -> Affine:
    """x * (std + epsilon) + mean where `mask`, else x."""
    return _masked([s + epsilon for s in std], list(mean), mask)


def from_range(low: Sequence[float], high: Sequence[float], *, mask: Sequence[bool] | None = None,
               epsilon: float = 0.0) -> Affine:
    """[-1, 1] -> [low, high] (min and max, or quantiles): (x + 1) / 2 * (high - low + epsilon) + low where
    `mask`, else x."""
    scale = [(b - a + epsilon) / 2 for a, b in zip(low, high, strict=True)]
    return _masked(scale, [a + s for a, s in zip(low, scale, strict=True)], mask)


def _masked(scale: list[float], offset: list[float], mask: Sequence[bool] | None) -> Affine:
    keep = [True] * len(scale) if mask is None else list(mask)
    return Affine(tuple(s if m else 1.0 for s, m in zip(scale, keep, strict=True)),
                  tuple(o if m else 0.0 for o, m in zip(offset, keep, strict=True)))


# ---- pieces of byte-level byte-pair encodings

def _byte_of_character() -> dict[str, int]:
    """The characters that encode bytes in byte-level BPE: printable Latin-1 as itself, the others, in order,
    from U+0100 (Radford et al. 2019, `bytes_to_unicode`)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(rest)}


def byte_pieces(tokenizer_json: str) -> tuple[tuple[int, ...], ...]:
    """The bytes of every token of a byte-level BPE `tokenizer.json`, by id. A token with a character outside
    of the byte alphabet stands for its own UTF-8 bytes. Raises SourceError for another kind of tokenizer."""
    try:
        document = json.loads(tokenizer_json)
        vocabulary = dict(document["model"]["vocab"])
        kind, decoder = document["model"]["type"], (document.get("decoder") or {}).get("type")
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError("the tokenizer cannot be read", where="vlacompile.policy.action_decoding.byte_pieces",
                          why=repr(error),
                          fix="give the text of a tokenizer.json") from error
    vocabulary |= {t["content"]: t["id"] for t in document.get("added_tokens", ())}
    if kind != "BPE" or decoder != "ByteLevel" or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        _refuse("the tokenizer is not byte-level BPE", "byte_pieces", f"model {kind}, decoder {decoder}",
                "give a tokenizer whose decoder is ByteLevel and whose ids are 0, 1, ...")
    byte = _byte_of_character()
    pieces = {i: tuple(byte[c] for c in token) if all(c in byte for c in token) else tuple(token.encode())
              for token, i in vocabulary.items()}
    return tuple(pieces[i] for i in range(len(pieces)))


assert set(OUTSIDES) == {"clip", "zero", "refuse", "skip"}
