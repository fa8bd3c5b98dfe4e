"""Recordings (NAME.vlog): their events, in the order in which each thread recorded them.

libvlart judges the file; what it lets pass is taken apart here by the tables of `bundle/format/records_recording.py`.
"""

from __future__ import annotations

import ctypes as c
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vlart.bundle.format import layout
from vlart.bundle.format.record import Record
from vlart.bundle.format.records_recording import (
    CLOCK_EVENT,
    CONTROL_EVENT,
    DECISION_EVENT,
    LOG,
    LOSS_EVENT,
    NOTE_EVENT,
    POP_EVENT,
    SOURCE_EVENT,
    STAGE_TIME,
    STEP_EVENT,
)
from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError, RuntimeFailure
from vlart.files.regular import read_below
from vlart.recording.wall_clock import WallClock
from vlart.runtime.library import Diag, LogEvent, LogInfo, check, libvlart
from vlart.vocabulary import EVENT_KINDS, EVENT_ROLES, NUMPY_DTYPES, SOURCE_FLAGS

MOST_BYTES = 1 << 40
MAGIC = layout.RECORDING_MAGIC
BLOCK_BYTES = 4096  # VLART_RECORDING_BLOCK
NOT_FOUND = 19
OK = 0
RECORDS: Mapping[str, Record] = {"source": SOURCE_EVENT, "step": STEP_EVENT, "pop": POP_EVENT,
                                 "decision": DECISION_EVENT, "control": CONTROL_EVENT, "loss": LOSS_EVENT,
                                 "clock": CLOCK_EVENT}
KINDS = {number: kind for kind, number in EVENT_KINDS.items()}
ROLES = {number: role for role, number in EVENT_ROLES.items()}
STAGE_ROW = np.dtype([("runs", "<u8"), ("ns", "<u8"), ("iterations", "<u4"), ("ran", "<u4")])
assert STAGE_ROW.itemsize == STAGE_TIME.size


def head_bytes(plan_bytes: int) -> int:
    """Where the blocks of a recording begin."""
    return -(-(LOG.size + plan_bytes) // BLOCK_BYTES) * BLOCK_BYTES


def whole_bytes(plan_bytes: int, block_count: int) -> int:
    """Size of its file."""
    return head_bytes(plan_bytes) + block_count * BLOCK_BYTES


@dataclass(frozen=True)
class Event:
    """kind, role: words of the vocabulary. track: who recorded it. sequence: 1, 2, ... in its track. time_ns: of
    CLOCK_MONOTONIC. fields: of its record. rest: the bytes behind the record."""

    kind: str
    role: str
    track: int
    lane: int
    sequence: int
    time_ns: int
    fields: Mapping[str, int | float | tuple]
    rest: bytes

    @property
    def text(self) -> str:
        """Of a text or a decision: the instruction."""
        return self.rest.decode(errors="replace")

    @property
    def stages(self) -> np.ndarray:
        """Of a step: STAGE_ROW[stages]."""
        return np.frombuffer(self.rest, STAGE_ROW, int(self.number("stage_count")))

    @property
    def chunk(self) -> np.ndarray | None:
        """Of a step: f32[chunk_steps * action_dim], if it gave a new one."""
        count = int(self.number("chunk_count"))
        at = int(self.number("stage_count")) * STAGE_ROW.itemsize
        return np.frombuffer(self.rest, "<f4", count, at) if count else None

    @property
    def actions(self) -> np.ndarray:
        """Of a pop: f32[rows, action_dim]."""
        return np.frombuffer(self.rest, "<f4").reshape(int(self.number("rows")), int(self.number("dim")))

    def number(self, field: str) -> int | float:
        value = self.fields[field]
        assert not isinstance(value, tuple)
        return value

    def has(self, flag: str) -> bool:
        """Of a source: one of SOURCE_FLAGS."""
        return bool(int(self.number("flags")) & SOURCE_FLAGS[flag])


class Log:
    """path: of a recording. Iterating gives its events in the file's order; those of one track are in the order in
    which they happened. plan: of the bundle that was recorded. clock: when that was. data, known_plan, known_clock:
    what the file holds, its plan, and what older blocks than these say of the wall clock, where they were read before.
    Raises BundleError where the file cannot be read or is no recording."""

    def __init__(self, path: str | Path, data: bytes | None = None, known_plan: Plan | None = None,
                 known_clock: WallClock | None = None):
        self.path = Path(path)
        self._library, self._diag = libvlart(), Diag()
        self._data = self._read() if data is None else data
        size, pointer, name = c.c_size_t(), c.c_void_p(), self.path.name.encode(errors="replace")
        self._check(self._library.vlart_log_required_bytes(self._data, len(self._data), name, c.byref(self._diag),
                                                           c.byref(size)))
        self._arena = c.create_string_buffer(size.value)
        self._check(self._library.vlart_log_open(self._data, len(self._data), name, self._arena, size.value,
                                                 c.byref(self._diag), c.byref(pointer)))
        self._log, self.info = pointer, LogInfo()
        check(self._library.vlart_log_info(pointer, c.byref(self.info)), self._diag, str(self.path))
        self.plan_bytes = c.string_at(self.info.plan, self.info.plan_bytes)
        self.plan: Plan = known_plan or read_plan(self.path.parent / "plan.bin", self.plan_bytes)
        own = WallClock(self.info.wall_ns - self.info.clock_ns, self.info.last_wall_ns - self.info.last_clock_ns,
                        self.info.clock_changes)
        self.clock = own if own.changes or known_clock is None else known_clock

    def _read(self) -> bytes:
        try:
            return read_below(self.path.absolute().parent, self.path.name, MOST_BYTES)
        except OSError as error:
            raise BundleError(f"cannot read {self.path.name}", where=str(self.path), why=str(error.strerror),
                              fix="give the path of a recording: what `--record FILE` or Recorder(FILE) wrote"
                              ) from error

    def _check(self, status: int) -> None:
        try:
            check(status, self._diag, str(self.path))
        except RuntimeFailure as failure:
            raise BundleError(failure.what, where=str(self.path), why=failure.why, fix=failure.fix) from failure

    @cached_property
    def bundle_hash(self) -> str:
        """sha256 of the bundle's plan.bin, which holds a checksum of every other file; as in its manifest."""
        return hashlib.sha256(self.plan_bytes).hexdigest()

    @property
    def full(self) -> bool:
        """Whether the content of sources was recorded."""
        return bool(self.info.full)

    @property
    def judges_lateness(self) -> bool:
        """Of version 1.0: a chunk was late by the clock of another thread, which says nothing of what was computed."""
        return self.info.version_minor == 0

    def wall_ns(self, time_ns: int) -> int:
        """An event's time as nanoseconds since 1970, by the newest reading of the wall clock."""
        return self.clock.wall_ns(time_ns)

    @property
    def cut_bytes(self) -> int:
        """How much of the file's end is not there: a recording has its full size from its beginning on."""
        return max(0, whole_bytes(self.info.plan_bytes, self.info.block_count) - len(self._data))

    def __iter__(self) -> Iterator[Event]:
        found = LogEvent()
        while self._library.vlart_log_next(self._log, c.byref(found)) == OK:
            kind = KINDS[found.kind]
            record = RECORDS.get(kind, NOTE_EVENT)
            data = c.string_at(found.record, found.bytes)
            yield Event(kind, ROLES[found.role], found.track, found.lane, found.sequence, found.time_ns,
                        record.unpack(data), data[record.size:])

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All of them."""
        return tuple(self)

    def content(self, event: Event) -> np.ndarray:
        """Of a source event with the flag "full": its array in the plan's dtype."""
        kind = self.plan.values[self.plan.sources[int(event.number("source"))].value].type
        return np.frombuffer(event.rest, NUMPY_DTYPES[kind.dtype]).reshape(kind.dims)

    @cached_property
    def losses(self) -> tuple[int, int]:
        """(events that no track had room for, blocks that the disk did not take)"""
        told = [e.fields for e in self.events if e.kind == "loss"]
        return sum(int(f["events"]) for f in told), max((int(f["blocks"]) for f in told), default=0)  # type: ignore[arg-type]
