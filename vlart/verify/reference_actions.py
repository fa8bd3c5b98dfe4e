"""Reference of a plan's decode steps and chunk consumption in plain NumPy: every chunk is kept and nothing is computed
online. Replays compare the actions popped from libvlart with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlart.bundle.plan.action import Affine, Basis, Delta, Ensemble, Lookup, Pieces, Queue, Realtime
from vlart.bundle.plan.plan import Action, Plan
from vlart.files.regular import open_below
from vlart.vocabulary import NUMPY_DTYPES


class NotDecoded(Exception):
    """The tokens do not decode to a chunk; libvlart returns ACTION_NOT_DECODED."""


class ActionReference:
    """The actions of one session. path: the bundle, from which its tables are read."""

    def __init__(self, path: Path, plan: Plan):
        assert plan.action is not None
        self.action: Action = plan.action
        self._plan = plan
        self._tables = {i: _table(path, plan, i) for i in {s.table for s in self.action.decode if hasattr(s, "table")}}
        self._chunks: list[tuple[int, np.ndarray]] = []  # (tick of its first action, actions [H,D])
        self.tick = 0  # actions popped so far
        self._last: np.ndarray | None = None  # the action that was popped last
        self._task: bytes | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that the decode steps read."""
        return tuple(self._plan.values[s.value].name for s in self.action.decode if isinstance(s, Delta))

    @property
    def task_sources(self) -> tuple[str, ...]:
        return tuple(self._plan.values[s.value].name for s in self._plan.sources if s.update == "task")

    @property
    def applies(self) -> bool:
        """Whether a popped action differs from a plain row of the action value."""
        return bool(self.action.decode) or self.action.consume != Queue() or self.action.rate_limit is not None

    def decode(self, raw: np.ndarray, sources: Mapping[str, np.ndarray]) -> np.ndarray:
        """raw: the action value; sources: {name: array}. float64 [H,D]. Raises NotDecoded."""
        a = self.action
        x: np.ndarray = np.empty(0)  # of symbols, until a step makes numbers of them
        if raw.dtype.kind == "f":
            x = raw.astype(np.float64).reshape(a.chunk_steps, a.action_dim)
        for step in a.decode:
            match step:
                case Lookup():
                    x = self._lookup(step, raw)
                case Pieces():
                    x = self._pieces(step, raw)
                case Basis(table):
                    x = self._tables[table].astype(np.float64) @ x
                case Affine(scale, offset):
                    x = x * np.array(scale) + np.array(offset)
                case Delta(value, element):
                    state = sources[self._plan.values[value].name].ravel().astype(np.float64)
                    x = x + np.array([0.0 if e is None else state[e] for e in element])
        return x

    def _lookup(self, step: Lookup, raw: np.ndarray) -> np.ndarray:
        out = np.zeros((self.action.chunk_steps, self.action.action_dim))
        for (h, d), token in np.ndenumerate(raw.reshape(out.shape)):
            row = step.direction * (int(token) - step.first[d])
            if not 0 <= row < step.rows[d]:
                if step.outside == "refuse":
                    raise NotDecoded
                if step.outside == "zero":
                    continue
                row = min(max(row, 0), step.rows[d] - 1)
            out[h, d] = self._tables[step.table][d, row]
        return out

    def _pieces(self, step: Pieces, raw: np.ndarray) -> np.ndarray:
        symbols: list[int] = []
        wanted = self.action.chunk_steps * self.action.action_dim
        for token in raw.ravel().tolist():
            if token == step.stop or (step.length == "fit" and _count(step, symbols) >= wanted):
                break
            row = step.direction * (token - step.first)
            if 0 <= row < len(self._tables[step.table]):
                symbols += [s for s in self._tables[step.table][row].tolist() if s >= 0]
            elif step.outside == "refuse":
                raise NotDecoded
        numbers = _numbers(step, symbols, wanted)
        if len(numbers) != wanted and step.length == "exact":
            raise NotDecoded
        numbers = (numbers + [0] * wanted)[:wanted]
        return np.array(numbers, np.float64).reshape(self.action.chunk_steps, self.action.action_dim)

    def publish(self, chunk: np.ndarray, task: bytes = b"") -> None:
        """Add a new chunk, observed at the current tick. task: content of the task sources; chunks of another task are
        no part of a mean."""
        if self._task != task and isinstance(self.action.consume, Ensemble):
            self._chunks.clear()
        self._task = task
        self._chunks = [c for c in self._chunks if self.tick < c[0] + len(c[1]) and c[0] != self.tick]
        self._chunks.append((self.tick, chunk))

    @property
    def predictions(self) -> np.ndarray:
        """All actions of the chunks that may still be executed, float64 [N,D]."""
        return np.concatenate([chunk for _, chunk in self._chunks])

    def pop(self) -> np.ndarray:
        """The action of the current tick, float64 [D]; NaN if the rate limit refuses it, which ends its chunk."""
        predictions = [chunk[self.tick - begin] for begin, chunk in self._chunks if self.tick - begin < len(chunk)]
        action = self.limited(self._consumed(predictions))
        if np.isnan(action).any():
            self._chunks.clear()
            return action
        self.tick += 1
        self._last = action
        return action

    def limited(self, action: np.ndarray) -> np.ndarray:
        """As the rate limit lets it be after the last action; NaN if it is refused."""
        limit = self.action.rate_limit
        if limit is None or self._last is None:
            return action
        step = np.where(np.array(limit.step) > 0, limit.step, np.inf)
        if limit.rule == "clip":
            return np.clip(action, self._last - step, self._last + step)
        return np.full_like(action, np.nan) if (np.abs(action - self._last) > step * (1 + 1e-6)).any() else action

    def _consumed(self, predictions: list[np.ndarray]) -> np.ndarray:
        match self.action.consume:
            case Ensemble(decay):
                weights = np.array([math.exp(-decay * i) for i in range(len(predictions))])
                return (weights[:, None] * np.array(predictions)).sum(0) / weights.sum()
            case Queue() | Realtime():
                return predictions[-1]


def _count(step: Pieces, symbols: list[int]) -> int:
    return sum(s & 0xC0 != 0x80 for s in symbols) if step.symbols == "utf8" else len(symbols)


def _numbers(step: Pieces, symbols: list[int], wanted: int) -> list[int]:
    if step.symbols == "integers":
        return [s + step.offset for s in symbols]
    text = bytes(symbols)
    if step.length == "fit":  # symbols beyond the chunk are ignored
        begins = [i for i, b in enumerate(text) if b & 0xC0 != 0x80]
        text = text[: begins[wanted]] if len(begins) > wanted else text
    try:
        return [ord(c) + step.offset for c in text.decode("utf-8")]
    except UnicodeDecodeError as error:
        raise NotDecoded from error


def _table(path: Path, plan: Plan, index: int) -> np.ndarray:
    weight = plan.weights[index]
    assert weight.file is not None, "a table is in a file"
    with open_below(path, plan.files[weight.file].path) as file:
        file.seek(weight.offset)
        data = file.read(weight.type.bytes)
    return np.frombuffer(data, NUMPY_DTYPES[weight.type.dtype]).reshape(weight.type.dims)
