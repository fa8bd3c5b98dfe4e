"""`Recorder`: libvlart's flight recorder from Python: what sessions saw and did, in one bounded file."""

from __future__ import annotations

import ctypes as c
import math
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.library import Diag, RecorderInfo, RecorderOptions, check, libvlart, whole
from vlart.runtime.open_bundle import path_bytes
from vlart.runtime.own_process import OwnProcess
from vlart.runtime.process_exit import end_at_exit

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

MIB = 1 << 20
ONE_ROBOT = 3  # tracks: session, control thread, router
NEVER = 0xFFFFFFFF  # VLART_RECORD_NEVER


@dataclass(frozen=True)
class Recorded:
    """events, bytes: that were taken. lost_events, lost_bytes: for which there was no memory. blocks, lost_blocks: of
    4 KiB, written and refused by the disk. laps: how often the oldest blocks began to be overwritten. error: what the
    system said of the last write that failed; None: none did."""

    events: int
    bytes: int
    lost_events: int
    lost_bytes: int
    blocks: int
    lost_blocks: int
    laps: int
    error: str | None

    @property
    def complete(self) -> bool:
        return not self.lost_events and not self.lost_blocks and self.error is None

    def words(self) -> str:
        """One line for a person."""
        if self.complete:
            return f"{self.events} events, {self.bytes / MIB:.1f} MiB, none lost"
        return (f"{self.events} events; {self.lost_events} lost for want of memory, {self.lost_blocks} blocks of 4 KiB "
                f"not written" + (f" ({self.error})" if self.error else ""))


class Recorder:
    """path: of the file, which must not exist; by convention NAME.vlog. content: record what was written into the
    sources, so that the recording can be replayed and exported; False: its size and CRC-32 alone. mib: of the file;
    when it is full, the oldest is overwritten. tracks: sessions, asynchronous sessions (two each) and routers that it
    can record; None: as many as one robot has. track_mib: memory for each, which bridges a slow disk; None: eight
    observations, and 1 MiB.
    flush_ms, sync_ms: after so long an event is with the system, and on the disk; sync_ms=None: when the system wants.

    The file is made with the first session that is recorded: Session(bundle, record=recorder). All are of one bundle.
    A recorder that is closed before its sessions ends with the last of them. Raises RuntimeFailure with libvlart's
    status and message.
    """

    def __init__(self, path: str | Path, *, content: bool = True, mib: float = 64.0, tracks: int | None = None,
                 track_mib: float | None = None, flush_ms: int = 100, sync_ms: int | None = 1000):
        self.path = Path(os.fsdecode(path_bytes("the recording", path)))
        self._recorder: c.c_void_p | None = None
        self._owner = OwnProcess("recorder")  # whose thread writes the file
        self._library, self._turn = libvlart(), threading.RLock()
        self._users, self._closing = 0, False
        self._last: Recorded | None = None
        self._options = RecorderOptions(
            path=os.fsencode(self.path), file_bytes=_bytes("mib", mib), tracks=whole("tracks", tracks or 0, c.c_uint32),
            track_bytes=0 if track_mib is None else _bytes("track_mib", track_mib), full=int(bool(content)),
            flush_ms=flush_ms, sync_ms=NEVER if sync_ms is None else sync_ms)

    def record(self, function: Callable[..., int], what: c.c_void_p, bundle: c.c_void_p | None = None,
               lanes: int = 0) -> None:
        """For the objects that are recorded: function(what, recorder, diag) of libvlart begins it. bundle: that of a
        session, whose plan the file is made with, and its lanes; None: there is a file."""
        self._owner.require(self.path)
        with self._turn:
            if self._closing:
                raise ConfigError("the recorder is closed", where=str(self.path), why="close() was called",
                                  fix="make another Recorder")
            if self._recorder is None:
                self._begin(bundle, lanes)
            diag = Diag()
            check(function(what, self._recorder, c.byref(diag)), diag, str(self.path))
            self._users += 1

    def release(self) -> None:
        """Of an object that is not recorded any more."""
        if not self._owner.is_this():
            return
        with self._turn:
            self._users -= 1
            if self._closing and self._users == 0:
                self._end()

    def info(self) -> Recorded:
        """Counters so far; after the end those of the end."""
        self._owner.require(self.path)
        with self._turn:
            return self._last or self._read()

    def close(self) -> None:
        """Write what is left, now or when the last session is closed; idempotent, and nothing in a forked process,
        which does not have the thread that writes."""
        if not self._owner.is_this():
            return
        with self._turn:
            self._closing = True
            if self._users == 0:
                self._end()

    def end(self) -> None:
        """When the interpreter ends: write what sessions that were not closed have recorded."""
        if self._owner.is_this():
            with self._turn:
                self._closing = True
                self._end()

    def _begin(self, bundle: c.c_void_p | None, lanes: int) -> None:
        if bundle is None:
            raise ConfigError("the recorder has no bundle yet", where=str(self.path),
                              why="its file begins with the plan of the first session that it records",
                              fix="record a session first")
        self._options.tracks = self._options.tracks or ONE_ROBOT + lanes
        diag, size, plan, plan_bytes = Diag(), c.c_size_t(), c.c_void_p(), c.c_size_t()
        where = str(self.path)
        check(self._library.vlart_bundle_plan(bundle, c.byref(plan), c.byref(plan_bytes)), diag, where)
        check(self._library.vlart_recorder_required_bytes(plan, plan_bytes.value, c.byref(self._options), c.byref(diag),
                                                          c.byref(size)), diag, where)
        self._arena, recorder = c.create_string_buffer(size.value), c.c_void_p()
        check(self._library.vlart_recorder_init(plan, plan_bytes.value, c.byref(self._options), self._arena, size.value,
                                                c.byref(diag), c.byref(recorder)), diag, where)
        self._recorder = recorder
        end_at_exit(self, records=True)

    def _read(self) -> Recorded:
        found = RecorderInfo()
        if self._recorder is not None:
            check(self._library.vlart_recorder_info(self._recorder, c.byref(found)), Diag(), str(self.path))
        return Recorded(found.events, found.bytes, found.lost_events, found.lost_bytes, found.blocks, found.lost_blocks,
                        found.laps, os.strerror(found.error) if found.error else None)

    def _end(self) -> None:
        if self._recorder is not None:
            self._library.vlart_recorder_close(self._recorder)
            self._last = self._read()
            self._recorder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_recorder", None) is not None and not sys.is_finalizing():
            self.close()


def recorder_of(record: Any) -> tuple[Recorder | None, bool]:
    """(what the option `record` stands for, whether it belongs to the session that it was given to)"""
    if record is None or isinstance(record, Recorder):
        return record, False
    return Recorder(record), True


def recorder_for(args: Any, tracks: int | None = None) -> Recorder | None:
    """What the arguments of vlart.arguments.add_record ask for."""
    return None if args.record is None else Recorder(args.record, content=not args.record_digests, mib=args.record_mib,
                                                     tracks=tracks)


def recorded_words(recorder: Recorder) -> str:
    """Ends a recording, its last session being closed; one line for a person. Raises RuntimeFailure where something is
    missing in it."""
    recorder.close()
    require_complete(recorder.info(), recorder.path)
    return f"{recorder.path}: {recorder.info().words()}"


def require_complete(recorded: Recorded, path: Path) -> None:
    """Raises RuntimeFailure if something is missing in a recording that has ended."""
    if not recorded.complete:
        raise RuntimeFailure("the recording is not complete", where=str(path), status="IO", why=recorded.words(),
                             fix="what is there can be read, and it says what is missing; free space on the disk, or "
                                 "record less: a smaller file, content=False")


def _bytes(name: str, mib: Any) -> int:
    least, most = (1 / 16, MIB) if name == "mib" else (0, math.inf)  # vlart_recorder.h: 64 KiB to 1 TiB
    if not isinstance(mib, (int, float, np.number)) or not least <= mib <= most or not 0 < mib < math.inf:
        raise ConfigError(f"{name} is {mib}", where="Recorder", why="it is a size, in MiB",
                          fix=f"give a number from {least} to {most}" if name == "mib" else "give a number above 0")
    return max(1, round(mib * MIB))
