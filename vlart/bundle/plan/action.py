"""From the action value to the actions of successive ticks, as plan data: decode steps, then consumption.

Owns the types. `action_text.py` prints and parses them, `action_binary.py` writes and reads them,
libvlart runs them (`runtime_c/src/session`: `decode_action.c`, `temporal_ensemble.c`, `realtime_chunking.c`).
H: steps of a chunk, D: numbers of an action. Tables are weights; numbers are f32.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lookup:
    """Tokens [H*D] -> numbers: row direction * (token - first[d]) of dimension d's table.

    table: weight f32[D,V]; rows[d] of its columns are in use. outside: "clip", "zero" or "refuse".
    """

    table: int
    direction: int
    outside: str
    first: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Pieces:
    """Tokens -> H*D numbers: each token stands for a run of symbols, as in byte-pair encoding.

    table: weight i32[V,L], the symbols of a token, then negative numbers. The token's row is
    direction * (token - first); outside: "refuse" or "skip". symbols: "utf8" (bytes; a number is a code
    point) or "integers"; `offset` is added to every number. stop: the token that ends the sequence.
    length: "exact" refuses another count than H*D, "fit" adds zeros or drops the rest.
    """

    table: int
    direction: int
    outside: str
    first: int
    symbols: str
    offset: int
    stop: int | None
    length: str


@dataclass(frozen=True)
class Basis:
    """Coefficients [H,D] -> steps [H,D]: multiplied by the weight `table`, f32[H,H]."""

    table: int


@dataclass(frozen=True)
class Affine:
    """x * scale[d] + offset[d]."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Delta:
    """x + element[d] of the source value `value` as it is when the chunk is decoded; None: x."""

    value: int
    element: tuple[int | None, ...]


DecodeStep = Lookup | Pieces | Basis | Affine | Delta


@dataclass(frozen=True)
class Queue:
    """The first h actions of a chunk, then a replan."""


@dataclass(frozen=True)
class Ensemble:
    """A replan per tick; the mean of all predictions of a tick, weighted exp(-decay * i), i = 0 the oldest."""

    decay: float


@dataclass(frozen=True)
class Realtime:
    """A chunk begins at the tick of its observation; it replaces the rest of the last one.

    delay: ticks that a replan is expected to take. schedule, horizon: of the prefix weights. previous,
    weights: values of sources that the runtime fills; chunk: the value that `previous` continues; all
    three or none.
    """

    delay: int
    schedule: str
    horizon: int
    previous: int | None = field(default=None)
    weights: int | None = field(default=None)
    chunk: int | None = field(default=None)


Consumption = Queue | Ensemble | Realtime


@dataclass(frozen=True)
class RateLimit:
    """How far an action may be from the one of the tick before. rule: a key of vocabulary.RATE_RULES. step: per action
    dimension, 0: any; f32."""

    rule: str
    step: tuple[float, ...]
