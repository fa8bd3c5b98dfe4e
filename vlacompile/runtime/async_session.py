"""`AsyncSession`: computes the next chunk on a worker thread while the control loop pops one action per tick."""

from __future__ import annotations

import ctypes as c
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vlacompile.errors import ConfigError, RuntimeFailure
from vlacompile.runtime.library import AsyncInfo, AsyncOptions, Diag, SensorInfo, check
from vlacompile.runtime.session import Session, tensor_arguments

SAFE = {"hold": 0, "zero": 1}
GIVEN = 2
STALE_INPUT = 30
CANCEL = {"keep": 0, "drop": 1, "episode": 2}
ANSWERED = {0: "OK", 17: "DEADLINE_MISSED", 23: "SAFE_ACTION"}  # statuses with which an action is returned


@dataclass(frozen=True)
class Popped:
    """action: [action_dim]. status: "OK"; "DEADLINE_MISSED": the next chunk is late and the previous one continues;
    "SAFE_ACTION": no chunk covers this tick."""

    action: np.ndarray
    status: str


class AsyncSession:
    """Asynchronous inference. All methods are called from one thread, the control loop's.

    lead_ticks: a replan is due this many ticks before `execute` of a chunk's actions are used up. stale_ticks: how many
    ticks beyond them a chunk continues; 0: to its end. deadline_ticks: limit from an observation to its chunk; 0: none.
    safe: the action for a tick without a chunk: "hold" (repeat the last action), "zero", or [action_dim] numbers.
    The other options are Session's. Action k of a chunk is for tick t + k, where t is the tick of its observation.
    Raises RuntimeFailure with libvlart's status and message.
    """

    def __init__(self, path: str | Path, *, lead_ticks: int = 0, stale_ticks: int = 0, deadline_ticks: int = 0,
                 safe: str | np.ndarray = "hold", threads: int = 1, engine_library: str | Path | None = None,
                 accept: Iterable[str] = (), max_age_ms: float = 0.0):
        self._async = None
        given = None if isinstance(safe, str) else np.ascontiguousarray(safe, np.float32)
        if given is None and safe not in SAFE:
            raise ConfigError(f'no safe action is called "{safe}"', where="AsyncSession",
                              why=f"known: {', '.join(SAFE)}",
                              fix="choose one, or give the numbers")
        self.session = Session(path, threads=threads, engine_library=engine_library, accept=accept,
                               max_age_ms=max_age_ms)
        self.plan, self._path, self._library = self.session.plan, Path(path), self.session._library
        dim = self.plan.action.action_dim if self.plan.action else 0
        if given is not None and given.shape != (dim,):
            self.session.close()
            raise ConfigError(f"the safe action has shape {list(given.shape)}", where="AsyncSession",
                              why=f"an action has {dim} numbers", fix="give one number per dimension")
        self._diag, size, pointer = Diag(), c.c_size_t(), c.c_void_p()
        options = AsyncOptions(lead_ticks=lead_ticks, stale_ticks=stale_ticks, deadline_ticks=deadline_ticks,
                               safe=SAFE[safe] if isinstance(safe, str) else GIVEN,
                               safe_action=None if given is None else given.ctypes.data)
        session = self.session._session
        try:
            self._check(self._library.vlart_async_required_bytes(session, c.byref(options), c.byref(self._diag),
                                                                 c.byref(size)))
            self._arena = c.create_string_buffer(size.value)
            self._check(self._library.vlart_async_init(session, c.byref(options), self._arena, size.value,
                                                       c.byref(self._diag), c.byref(pointer)))
        except RuntimeFailure:
            self.session.close()
            raise
        self._async, self._action = pointer, np.empty(dim, np.float32)
        # ctypes releases the GIL for the whole call.
        self._worker = threading.Thread(target=self._library.vlart_async_serve, args=(pointer,), name="vlart",
                                        daemon=True)

    def start(self) -> AsyncSession:
        """Start the worker; pending requests are answered then."""
        self._worker.start()
        return self

    def answer(self) -> None:
        """Compute for the newest observation in the calling thread, instead of a worker (do not start one). For
        simulations in which a replan takes a given number of ticks."""
        self._check(self._library.vlart_async_answer(self._open()))

    def write(self, name: str, array: Any) -> None:
        """Session.write, into the next observation."""
        source = self.session.source_index(name)
        self._check(self._library.vlart_async_write(self._open(), source, *tensor_arguments(
            name, array, self._path, self.session.source_dtype(source)), c.byref(self._diag)))

    def select(self, backbone: str | None) -> None:
        """Session.select, from the next request on."""
        self._check(self._library.vlart_async_select(self._open(), self.session.backbone_index(backbone),
                                                     c.byref(self._diag)))

    def time(self, now_us: int) -> None:
        """Session.time."""
        self._check(self._library.vlart_async_time(self._open(), now_us))

    def stamp(self, name: str, sequence: int, time_us: int) -> None:
        """Session.stamp."""
        self._check(self._library.vlart_async_stamp(self._open(), self.session.source_index(name),
                                                    sequence & 0xFFFFFFFF,
                                                    time_us, c.byref(self._diag)))

    def sensor(self, name: str) -> SensorInfo:
        """Session.sensor."""
        found = SensorInfo()
        self._check(self._library.vlart_async_sensor(self._open(), self.session.source_index(name), c.byref(found)))
        return found

    def request(self) -> bool:
        """Hand the observation of this tick to the worker; sources not written keep their content. False: a source is
        older than allowed and nothing was handed over; the chunk continues to its end, then the safe action follows."""
        status = self._library.vlart_async_request(self._open())
        if status != STALE_INPUT:
            self._check(status)
        return status != STALE_INPUT

    def pop(self) -> Popped:
        """The action of this tick; the tick advances in any case. Raises RuntimeFailure with status QUEUE_EMPTY if
        there is no action yet, nor one to hold."""
        status = self._library.vlart_async_pop(self._open(), self._action.ctypes.data, self._action.size,
                                               c.byref(self._diag))
        if status not in ANSWERED:
            self._check(status)
        return Popped(self._action.copy(), ANSWERED[status])

    def cancel(self, chunk: str = "keep") -> None:
        """Discard the chunk being computed: it is for another instruction. chunk: the one being executed continues
        ("keep"), is dropped ("drop"), or is dropped and a new episode begins ("episode"). Then write and request."""
        if chunk not in CANCEL:
            raise ConfigError(f'unknown way to cancel a chunk: "{chunk}"', where="AsyncSession.cancel",
                              why=f"known: {', '.join(CANCEL)}", fix="choose one of them")
        self._check(self._library.vlart_async_cancel(self._open(), CANCEL[chunk]))

    def info(self) -> AsyncInfo:
        """As vlart_async_info_t: tick, remaining, due, busy, late_ticks, chunks, discarded, failures, safe_actions,
        deadline_misses, latency_ns, status."""
        found = AsyncInfo()
        self._check(self._library.vlart_async_info(self._open(), c.byref(found)))
        return found

    def close(self) -> None:
        """Stop the worker after its running stage, and release everything; idempotent."""
        if self._async is not None:
            self._library.vlart_async_stop(self._async)
            if self._worker.ident is not None:
                self._worker.join()
            self._library.vlart_async_close(self._async)
            self._async = None
            self.session.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_async", None) is not None:
            self.close()

    def _open(self) -> c.c_void_p:
        if self._async is None:
            raise RuntimeFailure("the session is closed", where=str(self._path), why="close() was called",
                                 fix="open a new AsyncSession", status="BAD_ARGUMENT")
        return self._async

    def _check(self, status: int) -> None:
        check(status, self._diag, str(self._path))
