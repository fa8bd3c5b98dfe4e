"""`Lanes`: the sessions of a bundle whose stages run at different rates (the recipe's [[lane]])."""

from __future__ import annotations

import ctypes as c
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlart.bundle.plan.plan import Plan
from vlart.errors import ConfigError, RuntimeFailure, nearest
from vlart.runtime.library import Diag, LaneInfo, check
from vlart.runtime.process_exit import end_at_exit
from vlart.runtime.recorder import Recorder, recorder_of
from vlart.runtime.session import CONTROL, Session
from vlart.runtime.threads import Threads, how_they_run

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

OBSERVE_S = 5.0  # how long the end of a thread is waited for: a caller's `observe` may never return
SLOWEST_HZ = 0.001  # of start(): a period that a clock can wait for


@dataclass(frozen=True)
class Followed:
    """The control loop's view of a lane. sequence: number of the lane's step that it reads; 0: none yet. age_ms: time
    since that step began."""

    sequence: int
    age_ms: float


@dataclass(frozen=True)
class ActionOrigin:
    """What an action was computed from. observation, chunk, row: as of Session.popped. sequences: {lane: number of its
    step whose set the chunk was computed with}; the control loop may have taken a newer one since."""

    observation: int
    chunk: int
    row: int
    sequences: Mapping[str, int]


class Lane:
    """A slower rate. Its session belongs to one thread: the caller's, or the one of start().

    failure: what went wrong last in the thread of start(), or None; `running` says whether that ended it. A cancelled
    step is none: interrupt() or reset() asked for it.
    """

    def __init__(self, session: Session, followers: int):
        self.session, self._library = session, session._library
        self._diag, size, pointer = Diag(), c.c_size_t(), c.c_void_p()
        self._check(self._library.vlart_lane_required_bytes(session._session, followers, c.byref(self._diag),
                                                            c.byref(size)))
        self._arena = c.create_string_buffer(size.value)
        self._check(self._library.vlart_lane_init(session._session, followers, self._arena, size.value,
                                                  c.byref(self._diag), c.byref(pointer)))
        self._lane, self._ended, self._woken = pointer, threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._running, self._released, self._owner = False, False, threading.Lock()
        self._failures: dict[str, int] = {}
        self._reads: list[Lane] = []  # the slower ones, whose memory must outlive this one's thread
        self.failure: BaseException | None = None
        self.followers: list[Session] = []
        session.beneath.append(self)

    @property
    def running(self) -> bool:
        """Whether the thread of start() runs, in this process."""
        return self._running and self.session.is_of_this_process()

    @property
    def failures(self) -> dict[str, int]:
        """{status: how many steps of the thread of start() ended with it}, cancelled ones too."""
        return dict(self._failures)

    def write(self, name: str, array: Any) -> None:
        """Session.write, for the lane's own sources."""
        self.session.write(name, array)

    def step(self) -> None:
        """Run the lane's stages on what was written, and publish all their outputs together. On an error the readers
        keep the previous outputs. Raises RuntimeFailure with status CANCELLED for the first step after Lanes.reset(),
        and until the lane's sources were written since: what they held may be of the last episode."""
        self.session.require_open()
        with self.session.turn:
            self.session.require_open()
            self._check(self._library.vlart_lane_step(self._lane, c.byref(self._diag)))

    def interrupt(self) -> None:
        """For another instruction, or another event; for any thread. A step that is running ends before its next stage
        or iteration (status CANCELLED) and publishes nothing; the thread of start() observes and steps at once."""
        self.session.require_open()
        self._woken.set()
        self._check(self._library.vlart_lane_interrupt(self._lane))

    def start(self, observe: Callable[[Lane], None], hz: float | None = 0.0, runs: Threads | None = None) -> Lane:
        """Start a thread that calls observe(lane), which writes, and then steps: hz times per second; 0: as fast as
        possible; None: after each interrupt() only. runs: how the thread runs. A RuntimeFailure (a step that libvlart
        refuses, or a write) is counted in `failures` and kept in `failure`, and the thread goes on with the next
        observation; the control loop sees the lane's age grow. Any other exception of observe is kept in `failure` and
        ends the thread; start() may then be called again. Raises ConfigError while there is a thread."""
        self.session.require_open()
        if self._running:
            why = "its observe has not returned" if self._ended.is_set() else "start() was called before"
            raise ConfigError("the lane has a thread", where="Lane.start", why=why,
                              fix="call it once, or after stop() returned True: a lane's session belongs to one thread")
        if not callable(observe):
            raise ConfigError(f"observe is {observe!r}", where="Lane.start", why="it is called before each step",
                              fix="give a function of the lane, which writes its sources")
        known = isinstance(hz, (int, float, np.number)) and (hz == 0 or SLOWEST_HZ <= hz < math.inf)
        if hz is not None and not known:
            raise ConfigError(f"hz is {hz}", where="Lane.start", why="it is steps per second; 0: as fast as it can",
                              fix=f"give 0 or a number from {SLOWEST_HZ} on, or None for steps after interrupt() only")
        schedule = how_they_run("runs", runs or Threads())
        if self._ended.is_set():
            self._ended.clear()
            self._woken.clear()
        self.failure, self._failures = None, {}
        self._thread = threading.Thread(target=self._run, args=(observe, hz, schedule), name="vlart-lane", daemon=True)
        self._running = True
        end_at_exit(self)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left
            self._running, self._thread = False, None
            raise
        return self

    def _run(self, observe: Callable[[Lane], None], hz: float | None, runs: Threads) -> None:
        due = time.monotonic()
        try:
            runs.apply()
            while self._is_due(hz, due):
                self._woken.clear()
                self.session.require_open()
                try:
                    observe(self)
                    if not self._ended.is_set():
                        self.step()
                except RuntimeFailure as failure:
                    self._count(failure)
                due = max(due + 1 / hz, time.monotonic()) if hz else 0.0
        except BaseException as error:  # noqa: BLE001  observe is the caller's code and may raise anything, SystemExit too
            self.failure = error
        finally:
            with self._owner:
                self._running = False
                if self._released:
                    self.session.close()

    def _count(self, failure: RuntimeFailure) -> None:
        self._failures = self._failures | {failure.status: self._failures.get(failure.status, 0) + 1}
        if failure.status != "CANCELLED":
            self.failure = failure

    def _is_due(self, hz: float | None, due: float) -> bool:
        """Waits for the next step. False: there is none, stop() was called."""
        self._woken.wait(None if hz is None else max(0.0, due - time.monotonic()))
        return not self._ended.is_set()

    def _end(self) -> None:
        self._ended.set()
        self._woken.set()

    def stop(self, timeout_s: float = OBSERVE_S) -> bool:
        """End the thread of start() after the step or observe that it is in, and wait for it, at most so long. False:
        it still runs, and ends when its observe returns. What ended it before is in `failure`."""
        if not self.session.is_of_this_process():
            return True
        self._end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        return not self._running

    def end(self) -> None:
        """stop(), when the interpreter ends."""
        self.stop()

    def release(self) -> None:
        """stop(), and release the engine: now, or when the thread that is still in it ends."""
        if not self.session.is_of_this_process():
            return
        self.stop()
        with self._owner:
            self._released = True
            if not self._running:
                self.session.close()

    def _check(self, status: int) -> None:
        check(status, self._diag, str(self.session._path))


class Lanes:
    """control: the session of the control loop, which steps with the newest outputs published by every lane. lanes:
    {name: Lane}, from slow to fast; each also reads those before it. An action is computed from a lane's sources as
    they were at `followed(name).sequence`, and from all other sources as they are now.

    path and options: as for Session. Raises ConfigError for a bundle without lanes, RuntimeFailure as Session does.
    """

    def __init__(self, path: str | Path, *, record: Recorder | str | Path | None = None, **options: Any):
        self.lanes: dict[str, Lane] = {}
        options["record"], self._owns_recorder = recorder_of(record)
        self.control = Session(path, lane=CONTROL, **options)
        self.plan: Plan = self.control.plan
        if not self.plan.lanes:
            self.control.close()
            raise ConfigError("all stages of the bundle run at one rate", where=str(path),
                              why="its recipe has no [[lane]]",
                              fix="open it as a Session, or add a [[lane]] with the slower sources to the recipe")
        count = len(self.plan.lanes)
        try:
            for i, row in enumerate(self.plan.lanes):
                session = Session(path, lane=row.name, beside=self.control, **options)
                lane = Lane(session, count - i)
                for before in self.lanes.values():
                    self._follow(session, before)
                    lane._reads.append(before)
                self._follow(self.control, lane)
                self.lanes[row.name] = lane
        except RuntimeFailure:
            self.close()
            raise

    def __getitem__(self, name: str) -> Lane:
        """Raises ConfigError if there is no such lane."""
        if not isinstance(name, str) or name not in self.lanes:
            raise ConfigError(f'no lane is called "{name}"', where=str(self.control._path),
                              why=nearest(name, self.lanes),
                              fix="`vlacompile inspect` lists them")
        return self.lanes[name]

    def reset(self) -> None:
        """Begin an episode, in the control loop's thread. The lanes' threads go on; until a lane that has observations
        published a set of this episode, the control loop's step raises SOURCE_UNSET."""
        self.control.reset()

    def followed(self, name: str) -> Followed:
        """The control loop's view of a lane; to be called from its thread."""
        info, index = LaneInfo(), list(self.lanes.values()).index(self[name])
        self.control.require_open()
        with self.control.turn:
            check(self.control._library.vlart_session_followed(self.control.require_open(), index, c.byref(info)),
                  Diag(), str(self.control._path))
        return Followed(info.sequence, info.age_ns / 1e6)

    def popped(self) -> ActionOrigin:
        """What the action that `control.pop` handed out last was computed from; to be called from its thread. Raises
        RuntimeFailure, status QUEUE_EMPTY, if this episode has none."""
        found = self.control.popped()
        return ActionOrigin(found.observation, found.chunk, found.row, dict(zip(self.lanes, found.lanes, strict=False)))

    def _follow(self, session: Session, lane: Lane) -> None:
        diag = Diag()
        session.beneath.append(lane)  # each has pointers into the other, in libvlart
        lane.followers.append(session)
        check(session._library.vlart_session_follow(session._session, lane._lane, c.byref(diag)), diag,
              str(session._path))

    def close(self) -> None:
        """Stop the threads and release the engines; idempotent, and nothing in a forked process. A lane whose observe
        does not return is waited for as by Lane.stop(), and releases its engine when it does."""
        for lane in self.lanes.values():
            lane.release()
        recorder = self.control.recorder
        self.control.close()
        if recorder is not None and self._owns_recorder:
            recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
