"""Bundles whose output is handed on as it is, and then decoded and consumed: `Relay` is one Identity
stage from the source "raw" to the value "out", so that a test chooses what the decode steps see."""

from __future__ import annotations

import numpy as np
from onnx import helper
from sample_bundles import NONE, Bundle

from vlart import vocabulary

NAMES = {"f32": np.float32, "i32": np.int32, "i64": np.int64}


class Relay:
    """Sources: raw (observation), state f32[1,4] (observation; no stage reads it), and with `filled` a previous
    chunk f32[1,H,D] and prefix weights f32[H], which the stage hands on as "seen" and "heeded"."""

    def __init__(self, name: str, dtype: str, dims: tuple[int, ...], chunk: tuple[int, int], execute: int | None = None,
                 filled: bool = False):
        self.dtype, self.dims, (self.H, self.D) = dtype, dims, chunk
        b = self.bundle = Bundle(name)
        b.source("raw", dtype, dims, "observation")
        b.source("state", "f32", (1, 4), "observation")
        ports = [("i0", "raw", "whole")]
        outputs = [("o0", "out", "whole")]
        if filled:
            b.source("previous", "f32", (1, *chunk), "step")
            b.source("weights", "f32", (chunk[0],), "step")
            ports += [("i1", "previous", "whole"), ("i2", "weights", "whole")]
            outputs += [("o1", "seen", "whole"), ("o2", "heeded", "whole")]
            b.value("seen", "f32", (1, *chunk))
            b.value("heeded", "f32", (chunk[0],))
        b.value("out", dtype, dims)
        b.stage("relay",
                [helper.make_node("Identity", [i], [o]) for (i, *_), (o, *_) in zip(ports, outputs, strict=True)],
                [0, 2, 3] if filled else [0], ports, outputs)
        b.policy.update(action_value=b.values["out"], chunk_steps=self.H, execute_steps=execute or self.H,
                        action_dim=self.D)

    def bounds(self, low, high) -> Relay:
        self.bundle.policy.update(low_begin=self.bundle.plan.scalars("floats", low), low_count=len(low),
                                  high_begin=self.bundle.plan.scalars("floats", high), high_count=len(high))
        return self

    def decode(self, kind: str, table: np.ndarray | None = None, floats=(), indices=(), value: str | None = None,
               **fields) -> Relay:
        plan = self.bundle.plan
        count = len(plan.records.get("decodes", []))
        words = {"outside": vocabulary.OUTSIDES, "symbols": vocabulary.SYMBOLS, "length": vocabulary.LENGTHS}
        fields = {k: words[k][v] if k in words else v for k, v in fields.items()}
        row = {"outside": 0, "symbols": 0, "length": 0, "direction": 1, "offset": 0, "stop": -1} | fields
        plan.add("decodes", kind=vocabulary.DECODE_KINDS[kind],
                 table=NONE if table is None else self.bundle.weight(f"decode{count}", table),
                 value=NONE if value is None else self.bundle.values[value],
                 float_begin=plan.scalars("floats", list(floats)), float_count=len(floats),
                 index_begin=plan.scalars("indices", list(indices)), index_count=len(indices), **row)
        return self

    def lookup(self, table: np.ndarray, first: int = 0, rows=None, **fields) -> Relay:
        rows = [table.shape[1]] * self.D if rows is None else rows
        return self.decode("lookup", table.astype(np.float32), (), [first] * self.D + list(rows), **fields)

    def pieces(self, rows, first: int = 0, **fields) -> Relay:
        table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
        for to, row in zip(table, rows, strict=True):
            to[: len(row)] = row
        return self.decode("pieces", table, (), [first], **{"outside": "refuse", **fields})

    def affine(self, scale, offset) -> Relay:
        return self.decode("affine", floats=[*scale, *offset])

    def delta(self, element) -> Relay:
        return self.decode("delta", indices=[NONE if e is None else e for e in element], value="state")

    def consume(self, kind: str, **fields) -> Relay:
        row = {"decay": 0.0, "delay": 0, "schedule": "linear", "horizon": 0, "previous": NONE, "weights": NONE,
               "chunk": NONE} | fields
        row["schedule"] = vocabulary.SCHEDULES.get(row["schedule"], row["schedule"])
        row |= {k: self.bundle.values[row[k]] for k in ("previous", "weights", "chunk") if isinstance(row[k], str)}
        self.bundle.plan.add("consumption", consume=vocabulary.CONSUMES[kind], **row)
        return self

    def limit(self, rule: str, step) -> Relay:
        """How far an action may be from the last one."""
        self.bundle.plan.add("rate_limits", rule=vocabulary.RATE_RULES[rule], step_count=len(step),
                             step_begin=self.bundle.plan.scalars("floats", list(step)))
        return self

    def table(self, source: int, rows: int) -> Relay:
        self.bundle.plan.add("token_ranges", source=source, rows=rows)
        return self

    def guard(self, source: int, low=(), high=(), outside: str = "count", max_age_us: int = 0, **fields) -> Relay:
        """In the order of sources."""
        floats = self.bundle.plan.scalars
        self.bundle.plan.add("guards", source=source, outside=vocabulary.GUARD_RULES[outside], low_count=len(low),
                             low_begin=floats("floats", list(low)), high_count=len(high),
                             high_begin=floats("floats", list(high)), max_age_us=max_age_us,
                             **{"not_finite": 0, **fields})
        return self


def idct(steps: int) -> np.ndarray:
    """The orthonormal inverse DCT-II as a matrix, entry by entry from its definition."""
    out = np.zeros((steps, steps))
    for n in range(steps):
        for k in range(steps):
            norm = np.sqrt(1 / steps) if k == 0 else np.sqrt(2 / steps)
            out[n, k] = norm * np.cos(np.pi * (2 * n + 1) * k / (2 * steps))
    return out


def samples() -> dict[str, Relay]:
    """One of each, for the C tests and the fuzzer. The null engine writes null_control.token, 0.5 or zeros."""
    rng = np.random.default_rng(0)
    table = rng.uniform(-1, 1, (2, 4))
    return {
        "lookup": Relay("lookup", "i64", (1, 6), (3, 2)).lookup(table, 5, [4, 3], direction=-1)
        .affine([0.5, 2], [0.25, 0]).delta([1, None]).bounds([-9] * 2, [9] * 2),
        "pieces": Relay("pieces", "i32", (1, 4), (2, 2)).pieces([(72,), (0xC5, 0xA2), (65, 66)], symbols="utf8",
                                                              offset=-70, length="fit", stop=9)
        .decode("basis", (idct(2) / 10).astype(np.float32)),
        "ensemble": Relay("ensemble", "f32", (1, 4, 2), (4, 2), 1).consume("ensemble", decay=0.01),
        "realtime": Relay("realtime", "f32", (1, 5, 2), (5, 2), 2, filled=True).affine([2, 2], [1, 1])
        .consume("realtime", delay=1, horizon=3, previous="previous", weights="weights", chunk="out"),
        "guarded": Relay("guarded", "f32", (1, 5, 2), (5, 2), 2).delta([1, None])
        .guard(0, (-4, -8), (4, 8), "refuse", 50_000).guard(1, (-1,), (1,)),
        **{f"limited_{rule}": Relay(f"limited_{rule}", "i32", (1, 6), (3, 2))
           .lookup(np.array([[0, 1, 4, 9], [0, 1, 2, 3]])).limit(rule, [2, 0]).table(0, 4)
           for rule in vocabulary.RATE_RULES},
    }
