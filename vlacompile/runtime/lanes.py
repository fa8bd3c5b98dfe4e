"""`Lanes`: the sessions of a bundle whose stages run at different rates (the recipe's [[lane]])."""

from __future__ import annotations

import ctypes as c
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vlacompile.bundle.plan.plan import Plan
from vlacompile.errors import ConfigError, RuntimeFailure, nearest
from vlacompile.runtime.library import Diag, LaneInfo, check
from vlacompile.runtime.session import CONTROL, Session


@dataclass(frozen=True)
class Followed:
    """The control loop's view of a lane. sequence: number of the lane's step that it reads; 0: none yet. age_ms: time
    since that step began."""

    sequence: int
    age_ms: float


class Lane:
    """A slower rate. Its session belongs to one thread: the caller's, or the one of start()."""

    def __init__(self, session: Session, followers: int):
        self.session, self._library = session, session._library
        self._diag, size, pointer = Diag(), c.c_size_t(), c.c_void_p()
        self._check(self._library.vlart_lane_required_bytes(session._session, followers, c.byref(self._diag),
                                                            c.byref(size)))
        self._arena = c.create_string_buffer(size.value)
        self._check(self._library.vlart_lane_init(session._session, followers, self._arena, size.value,
                                                  c.byref(self._diag), c.byref(pointer)))
        self._lane, self._ended = pointer, threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: Exception | None = None

    def write(self, name: str, array: Any) -> None:
        """Session.write, for the lane's own sources."""
        self.session.write(name, array)

    def step(self) -> None:
        """Run the lane's stages on what was written, and publish all their outputs together. On an error the readers
        keep the previous outputs."""
        self._check(self._library.vlart_lane_step(self._lane, c.byref(self._diag)))

    def start(self, observe: Callable[[Lane], None], hz: float = 0.0) -> Lane:
        """Start a thread that calls observe(lane), which writes, and then steps: hz times per second, or as fast as
        possible. An error ends the thread and is stored in `failure`; the control loop then sees the lane's age
        grow."""
        self._thread = threading.Thread(target=self._run, args=(observe, hz), name="vlart-lane", daemon=True)
        self._thread.start()
        return self

    def _run(self, observe: Callable[[Lane], None], hz: float) -> None:
        due = time.monotonic()
        try:
            while not self._ended.is_set():
                observe(self)
                self.step()
                due = max(due + 1 / hz, time.monotonic()) if hz else 0.0
                self._ended.wait(max(0.0, due - time.monotonic()) if hz else 0.0)
        except Exception as error:  # noqa: BLE001  observe is the caller's code and may raise anything
            self.failure = error

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _check(self, status: int) -> None:
        check(status, self._diag, str(self.session._path))


class Lanes:
    """control: the session of the control loop, which steps with the newest outputs published by every lane. lanes:
    {name: Lane}, from slow to fast; each also reads those before it. An action is computed from a lane's sources as
    they
    were at `followed(name).sequence`, and from all other sources as they are now.

    path and options: as for Session. Raises ConfigError for a bundle without lanes, RuntimeFailure as Session does.
    """

    def __init__(self, path: str | Path, **options: Any):
        self.lanes: dict[str, Lane] = {}
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
                self._follow(self.control, lane)
                self.lanes[row.name] = lane
        except RuntimeFailure:
            self.close()
            raise

    def __getitem__(self, name: str) -> Lane:
        """Raises ConfigError if there is no such lane."""
        if name not in self.lanes:
            raise ConfigError(f'no lane is called "{name}"', where=str(self.control._path),
                              why=nearest(name, self.lanes),
                              fix="`vlacompile inspect` lists them")
        return self.lanes[name]

    def followed(self, name: str) -> Followed:
        """The control loop's view of a lane; to be called from its thread."""
        info, index = LaneInfo(), list(self.lanes.values()).index(self[name])
        check(self.control._library.vlart_session_followed(self.control._session, index, c.byref(info)), Diag(),
              str(self.control._path))
        return Followed(info.sequence, info.age_ns / 1e6)

    def _follow(self, session: Session, lane: Lane) -> None:
        diag = Diag()
        check(session._library.vlart_session_follow(session._session, lane._lane, c.byref(diag)), diag,
              str(session._path))

    def close(self) -> None:
        """Stop the threads and release the engines; idempotent."""
        for lane in self.lanes.values():
            lane.stop()
            lane.session.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
