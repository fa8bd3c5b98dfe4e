"""What a policy predicted for each tick, beside what was executed then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vlart.recording.timeline import EpisodeLine


@dataclass(frozen=True)
class Predicted:
    """time_ns: of the tick that the action was predicted for. chunk: counted in the episode, from 0. row: of it."""

    time_ns: int
    action: np.ndarray
    chunk: int
    row: int


def predictions(line: EpisodeLine, tick_ns: int) -> Iterator[Predicted]:
    """Row k of a chunk is for k ticks after its observation; of two chunks for a tick the newer one. Real-time chunks
    and asynchronous ones drop the rows that were over when they came; these are here, too. tick_ns 0: the first rows
    alone."""
    chunks = [o for o in line.observed if o.chunk is not None]
    ends = [o.time_ns for o in chunks[1:]]
    for i, observed in enumerate(chunks):
        assert observed.chunk is not None
        for row, action in enumerate(observed.chunk if tick_ns else observed.chunk[:1]):
            time_ns = observed.time_ns + row * tick_ns
            if i < len(ends) and time_ns >= ends[i]:
                break
            yield Predicted(time_ns, action, i, row)
