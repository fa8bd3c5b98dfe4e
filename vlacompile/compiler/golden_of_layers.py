"""Golden frames of stages whose layers became a loop: what single layers gave is expected as rows of one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vlart.verify.frames import Expected, Frame
from vlart.verify.metrics import Limit, Metrics


def golden_of_layers(frames: Sequence[Frame], rows: Mapping[str, tuple[str, int]],
                     layers: Mapping[str, int]) -> tuple[Frame, ...]:
    """rows: {value: (the value that has it as a row, which)}. layers: {value with rows: how many}. Of a value some
    layer of which no frame expects, nothing is expected. The limit is the widest of its rows."""
    return tuple(replace(f, expects=_expected(f, rows, layers)) for f in frames)


def _expected(frame: Frame, rows: Mapping[str, tuple[str, int]], layers: Mapping[str, int]) -> dict[str, Expected]:
    kept = {n: e for n, e in frame.expects.items() if n not in rows}
    found: dict[str, dict[int, Expected]] = {}
    for name, (value, row) in rows.items():
        if name in frame.expects:
            found.setdefault(value, {})[row] = frame.expects[name]
    for value, parts in found.items():
        if len(parts) == layers[value]:
            ordered = [parts[k] for k in sorted(parts)]
            kept[value] = Expected(np.stack([e.array for e in ordered]), _widest([e.limit for e in ordered]))
    return kept


def _widest(limits: Sequence[Metrics]) -> Limit:
    columns = [x.columns if isinstance(x, Limit) else () for x in limits]
    same = len({len(c) for c in columns}) == 1
    return Limit(max(x.max_abs for x in limits), max(x.rel_l2 for x in limits), min(x.cosine for x in limits),
                 tuple(map(max, *columns)) if same and len(columns) > 1 else ())
