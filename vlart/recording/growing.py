"""A recording that is being written, read as it grows: each look reads the blocks that are new, and no more of them
than it is allowed to.

Blocks are written once and in their order, so that whoever knows the number of the next one knows its place. What is
new is handed to libvlart as a recording of its own: the head, and a ring of just these blocks. An event that is there
in part is kept until its rest is. Must not know what events mean.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vlart.bundle.format.records_recording import BLOCK, LOG
from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError
from vlart.files.regular import open_below
from vlart.recording.log import BLOCK_BYTES, MAGIC, Event, Log
from vlart.recording.wall_clock import WallClock

MOST_READ = 8 << 20  # bytes of one look
MOST_BEHIND = 64 << 20  # what is older than that is passed over
PIECE, FEW = 256, 4  # blocks that are read at once, at most and at first
PROBES, GRIDS = 256, 16  # places of a ring at equal distances, to find its newest block; how often in one look
NO_EVENT = 0xFFFFFFFF  # of `first`: no event begins in the block
HEAD_CRC_BYTES = 4  # the last of the head, the first of a block
MOST_HEAD = (1 << 28) + 2 * BLOCK_BYTES  # VLART_MAX_PLAN_BYTES, and the record before it


class _Block(NamedTuple):
    sequence: int
    first: int
    data: bytes


class Growing:
    """path: of the file, which may be made, replaced or cut off at any time. recording: of the file that was looked at
    last, 0 before; plan, plan_bytes: of its bundle. read_bytes: of all looks. passed_blocks: that were overwritten or
    could not be read, or are too far behind the newest to be looked at. cut_bytes: of the file's end that is not there.
    is_behind: the last look left something for the next one."""

    def __init__(self, path: Path, most_read: int = MOST_READ, most_behind: int = MOST_BEHIND):
        self.path = path
        self._most, self._most_behind = max(1, most_read // BLOCK_BYTES), max(1, most_behind // BLOCK_BYTES)
        self.recording, self.read_bytes = 0, 0
        self.plan: Plan | None = None
        self.plan_bytes = b""
        self._begin(b"")

    def _begin(self, head: bytes) -> None:
        self._head, self._log = head, LOG.unpack(head) if head else {}
        self._count = int(self._log.get("block_count", 0))
        self._next: int | None = None  # number of the block that is read next
        self._changed = 0  # when the file was written, by its own account
        self._grids = 0  # how many sets of places nobody has looked at since
        self._held: list[_Block] = []  # from the one in which the last event begins
        self._seen: dict[int, int] = {}  # {track: number of its newest event}
        self._ends: set[tuple] = set()  # what is told at the end of a track, which has no number
        self._clock: WallClock | None = None  # by the newest of the blocks that were read
        self.passed_blocks, self.cut_bytes, self.is_behind = 0, 0, False

    def look(self) -> tuple[Log, list[Event]] | None:
        """(a recording of the newest, the events that are new). None: nothing is. Raises OSError, and BundleError for
        what is no recording."""
        with open_below(self.path.absolute().parent, self.path.name) as file:
            self._look_at_head(file)
            whole = len(self._head) + self._count * BLOCK_BYTES
            self.cut_bytes = max(0, whole - os.fstat(file.fileno()).st_size)
            before = self._next
            new = self._new_blocks(file)
        if not new:
            return None
        events: list[Event] = []
        for run in _runs(self._held + new):
            try:
                log = Log(self.path, self._recording_of(run), self.plan, self._clock)
            except BundleError:
                self._next = before  # no look gets past it
                raise
            self._clock = log.clock
            events += self._not_given(log)
        begins = max((i for i, b in enumerate(run) if b.first != NO_EVENT), default=0)
        self._held = run[begins:]
        return log, events

    def _not_given(self, log: Log) -> Iterator[Event]:
        for event in log:
            newest = self._seen.get(event.track, 0)
            if event.sequence:
                is_new = event.sequence > newest
                self._seen[event.track] = max(event.sequence, newest)
            else:
                end = event.track, event.kind, event.time_ns
                is_new = end not in self._ends
                self._ends.add(end)
            if is_new:
                yield event

    def _read(self, file: BinaryIO, at: int, size: int) -> bytes:
        data = os.pread(file.fileno(), size, at)
        self.read_bytes += len(data)
        return data

    # The head

    def _look_at_head(self, file: BinaryIO) -> None:
        record = self._read(file, 0, LOG.size)
        if self._head and record == self._head[:LOG.size]:
            return
        head = record
        if len(record) == LOG.size and record.startswith(MAGIC):
            head = self._read(file, 0, min(int(LOG.unpack(record)["head_bytes"]), MOST_HEAD))
        log = Log(self.path, head)  # judges it
        self._begin(head)
        self.recording, self.plan, self.plan_bytes = int(log.info.recording), log.plan, log.plan_bytes

    def _recording_of(self, blocks: list[_Block]) -> bytes:
        """A recording whose ring has these blocks alone."""
        count = blocks[-1].sequence - blocks[0].sequence + 1
        record = LOG.pack(**{**self._log, "block_count": count})[:-HEAD_CRC_BYTES]
        ring = bytearray(count * BLOCK_BYTES)
        for block in blocks:
            at = block.sequence % count * BLOCK_BYTES
            ring[at: at + BLOCK_BYTES] = block.data
        return b"".join((record, zlib.crc32(record).to_bytes(HEAD_CRC_BYTES, "little"), self._head[LOG.size:], ring))

    # The ring

    def _new_blocks(self, file: BinaryIO) -> list[_Block]:
        """In their order, at most as many as may be read; moves self._next behind them."""
        if self._next is None or self.is_behind:
            begin = max(0, self._newest(file) + 1 - min(self._count, self._most_behind))
            self.passed_blocks += 0 if self._next is None else max(0, begin - self._next)
            self._next = max(begin, self._next or 0)
        found: list[_Block] = []
        asked = FEW
        while len(found) < self._most and \
                (piece := self._piece(file, min(asked, self._most - len(found)), everywhere=not found)):
            self.passed_blocks += piece[-1].sequence + 1 - self._next - len(piece)
            self._next = piece[-1].sequence + 1
            found += piece
            asked = min(2 * asked, PIECE)
        self.is_behind = len(found) == self._most
        return found

    def _piece(self, file: BinaryIO, most: int, everywhere: bool) -> list[_Block]:
        """New blocks that lie beside each other: those from self._next on; where that one is not there, of a later
        place. everywhere: one that is not easily found, too."""
        for begin in self._places(file, everywhere):
            if found := self._blocks_from(file, begin, most):
                return found
        return []

    def _places(self, file: BinaryIO, everywhere: bool) -> Iterator[int]:
        """Numbers of blocks that are there by what they say of themselves: the next one, or, where the disk did not
        take it or it was overwritten, later ones."""
        assert self._next is not None
        there = self._sequence_at(file, self._next)
        if there == self._next:
            yield there
        elif there > self._next:  # the ring was written faster than it is read: leave the writer some room
            kept = min(self._count, self._most_behind)
            yield max(self._next, self._newest(file) + 1 - kept + min(PIECE, kept // 4))
        for step in self._later(file, everywhere):
            if self._sequence_at(file, self._next + step) > self._next:
                yield self._next  # was perhaps being written; what is behind it was written later
                yield self._sequence_at(file, self._next + self._first_there(file, step))

    def _later(self, file: BinaryIO, everywhere: bool) -> Iterator[int]:
        """Distances from self._next: doubled ones; and that of the newest block, until all places were looked at since
        the file was written."""
        assert self._next is not None
        yield from takewhile(lambda step: step < self._count, (1 << k for k in count()))
        changed = os.fstat(file.fileno()).st_mtime_ns
        grids = max(1, self._count // PROBES)
        if everywhere and changed != self._changed:
            self._changed, self._grids = changed, grids
        for _ in range(min(self._grids, GRIDS) if everywhere else 0):
            left = self._grids - 1
            self._grids = grids  # if something is found, there may be more behind it
            if (newest := self._newest(file, left)) > self._next:
                yield newest - self._next
            self._grids = left

    def _first_there(self, file: BinaryIO, there: int) -> int:
        """Where what is missing ends, as a distance from self._next up to this one, at which there is a block."""
        assert self._next is not None
        absent = 0
        while there - absent > 1:
            middle = (absent + there) // 2
            if self._sequence_at(file, self._next + middle) > self._next:
                there = middle
            else:
                absent = middle
        return there

    def _blocks_from(self, file: BinaryIO, sequence: int, most: int) -> list[_Block]:
        """Those of these numbers that are there, up to the end of the ring."""
        place = sequence % self._count
        asked = min(most, self._count - place)
        data = self._read(file, self._at(place), asked * BLOCK_BYTES)
        found = {i: self._good(data[i * BLOCK_BYTES: (i + 1) * BLOCK_BYTES], sequence + i) for i in range(asked)}
        newest = max((i for i, block in found.items() if block is not None), default=0)
        for i in range(newest):
            if found[i] is None:  # the same
                found[i] = self._good(self._read(file, self._at(place + i), BLOCK_BYTES), sequence + i)
        return [block for block in found.values() if block is not None]

    def _at(self, place: int) -> int:
        return len(self._head) + place * BLOCK_BYTES

    def _good(self, data: bytes, sequence: int) -> _Block | None:
        if len(data) < BLOCK_BYTES:
            return None
        block = BLOCK.unpack(data)
        used = int(block["used"])
        right = (block["recording"] == self.recording and block["sequence"] == sequence
                 and 0 < used <= BLOCK_BYTES - BLOCK.size
                 and block["crc32"] == zlib.crc32(data[HEAD_CRC_BYTES: BLOCK.size + used]))
        return _Block(sequence, int(block["first"]), data) if right else None

    def _sequence_at(self, file: BinaryIO, number: int) -> int:
        """Of the block that lies where `number` belongs; -1: none does. Its content is not looked at."""
        place = number % self._count
        data = self._read(file, self._at(place), BLOCK.size)
        block = BLOCK.unpack(data) if len(data) == BLOCK.size else {"recording": None, "sequence": -1}
        return int(block["sequence"]) if block["recording"] == self.recording \
            and block["sequence"] % self._count == place else -1

    def _newest(self, file: BinaryIO, first: int = 0) -> int:
        """Number of the newest block, or of one before it; -1: there is none. Looks at PROBES places at equal
        distances, from `first` on, and then at as many behind the newest of those."""
        begin, width, newest = 0, self._count, -1
        while True:
            step = max(1, width // PROBES)
            newest = max(newest, *(self._sequence_at(file, p) for p in range(begin + first, begin + width, step)))
            first = 0
            if step == 1 or newest < 0:
                return newest
            begin, width = newest, step


def _runs(blocks: list[_Block]) -> list[list[_Block]]:
    """Cut where many are missing: a ring is as long as its numbers go."""
    found = [[blocks[0]]]
    for block in blocks[1:]:
        if block.sequence - found[-1][-1].sequence > PIECE:
            found.append([])
        found[-1].append(block)
    return found
