"""`AsyncSession`: computes the next chunk on a worker thread while the control loop pops one action per tick."""

from __future__ import annotations

import ctypes as c
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlart.errors import ConfigError, RuntimeFailure
from vlart.runtime.library import ActionInfo, AsyncInfo, AsyncOptions, Diag, SensorInfo, check, whole
from vlart.runtime.own_process import OwnProcess
from vlart.runtime.process_exit import end_at_exit
from vlart.runtime.recorder import Recorder
from vlart.runtime.session import Session, frame_number
from vlart.runtime.tensor_arguments import tensor_arguments
from vlart.runtime.threads import Threads, how_they_run

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

SAFE = {"hold": 0, "zero": 1}
GIVEN = 2
STALE_INPUT = 30
CANCEL = {"keep": 0, "drop": 1, "episode": 2}
EXPIRE = {"time": 0, "execution": 1}
ANSWERED = {0: "OK", 17: "DEADLINE_MISSED", 23: "SAFE_ACTION"}  # statuses with which an action is returned


@dataclass(frozen=True)
class Popped:
    """action: [action_dim]. status: "OK"; "DEADLINE_MISSED": the next chunk is late and the previous one continues;
    "SAFE_ACTION": no chunk covers this tick. observation, row: the name of the observation that the chunk was made of,
    and which of its actions this is; 0 for a safe action that was never part of one."""

    action: np.ndarray
    status: str
    observation: int
    row: int


def _numbers(safe: Any) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as that
            return np.ascontiguousarray(safe, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the safe action is {safe!r}", where="AsyncSession", why=str(error).partition("\n")[0],
                          fix=f"give numbers, or one of {', '.join(SAFE)}") from error


def _serve(library: c.CDLL, pointer: c.c_void_p, runs: Threads,
           began: queue.SimpleQueue[Exception | None]) -> None:
    try:
        runs.apply()
    except Exception as failure:  # noqa: BLE001  whatever it is, `start` waits for it
        began.put(failure)
        return
    began.put(None)
    library.vlart_async_serve(pointer)  # ctypes releases the GIL for the whole call


class AsyncSession:
    """Asynchronous inference. All methods are called from one thread, the control loop's, apart from `write_all`.

    lead_ticks: a replan is due this many ticks before `execute` of a chunk's actions are used up. stale_ticks: how many
    ticks beyond them a chunk continues; 0: to its end. deadline_ticks: limit from an observation to its chunk; 0: none.
    safe: the action for a tick without a chunk: "hold" (repeat the episode's last action), "zero", or [action_dim]
    numbers. expire: whether such a tick consumes a row of the chunk being computed ("time": the world goes on
    meanwhile) or none ("execution": the robot is still where it was seen). worker: how the worker's thread runs. The
    other options are Session's.
    Action k of a chunk is for tick t + k, where t is the tick of its observation; until the first action of an episode
    was handed out ticks stand still, so that its first chunk begins at action 0.
    Raises RuntimeFailure with libvlart's status and message.
    """

    def __init__(self, path: str | Path, *, lead_ticks: int = 0, stale_ticks: int = 0, deadline_ticks: int = 0,
                 safe: str | np.ndarray = "hold", expire: str = "time", threads: int = 1,
                 engine_library: str | Path | None = None,
                 accept: Iterable[str] = (), max_age_ms: float = 0.0, pool: Threads | None = None,
                 worker: Threads | None = None, native_code: bool = False,
                 record: Recorder | str | Path | None = None):
        self._async = None
        self._owner = OwnProcess("session")
        # A thread that is in a call is inside what `close` releases.
        self._use = threading.RLock()  # of `write_all`, which waits for nothing else
        self._turn = threading.RLock()  # of every other call
        given = None if isinstance(safe, str) else _numbers(safe)
        if given is None and safe not in SAFE:
            raise ConfigError(f'no safe action is called "{safe}"', where="AsyncSession",
                              why=f"known: {', '.join(SAFE)}",
                              fix="choose one, or give the numbers")
        if not isinstance(expire, str) or expire not in EXPIRE:
            raise ConfigError(f'unknown rule by which rows expire: "{expire}"', where="AsyncSession",
                              why=f"known: {', '.join(EXPIRE)}", fix="choose one of them")
        runs = how_they_run("worker", worker or Threads())
        self.session = Session(path, threads=threads, engine_library=engine_library, accept=accept,
                               max_age_ms=max_age_ms, pool=pool, native_code=native_code, record=record)
        self.plan, self._path, self._library = self.session.plan, Path(path), self.session._library
        dim = self.plan.action.action_dim if self.plan.action else 0
        if given is not None and given.shape != (dim,):
            self.session.close()
            raise ConfigError(f"the safe action has shape {list(given.shape)}", where="AsyncSession",
                              why=f"an action has {dim} numbers", fix="give one number per dimension")
        self._diag, size, pointer = Diag(), c.c_size_t(), c.c_void_p()
        options = AsyncOptions(lead_ticks=lead_ticks, stale_ticks=stale_ticks, deadline_ticks=deadline_ticks,
                               safe=SAFE[safe] if isinstance(safe, str) else GIVEN,
                               safe_action=None if given is None else given.ctypes.data, expire=EXPIRE[expire])
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
        own = weakref.ref(self)

        def end() -> None:
            session = own()
            if session is not None:
                session.close()

        self.session.before_close = end
        self._async, self._action, self._info = pointer, np.empty(dim, np.float32), ActionInfo()
        self._recorder = self.session.recorder
        if self._recorder is not None:
            self._recorder.record(self._library.vlart_async_record, pointer)
        self._began: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        # The thread knows nothing of this object, which may be collected while it runs.
        self._worker = threading.Thread(target=_serve, args=(self._library, pointer, runs, self._began),
                                        name="vlart", daemon=True)

    def start(self) -> AsyncSession:
        """Start the worker; pending requests are answered then. Raises RuntimeFailure with status THREAD_REFUSED if the
        system does not let it run as `worker` says."""
        self._open()
        if self._worker.ident is not None:
            raise ConfigError("the worker runs already", where="AsyncSession.start", why="start() was called before",
                              fix="call it once; `with` does")
        end_at_exit(self)
        self._worker.start()
        refused = self._began.get()
        if refused is not None:
            self.close()
            raise refused
        return self

    def answer(self) -> None:
        """Compute for the newest observation in the calling thread, instead of a worker. For simulations in which a
        replan takes a given number of ticks. Raises ConfigError if the worker was started, as `with` does."""
        self._require_no_worker("answer")
        self._call(self._library.vlart_async_answer)

    def _require_no_worker(self, method: str) -> None:
        self._open()
        if self._worker.ident is not None:
            raise ConfigError("the worker computes already", where=f"AsyncSession.{method}",
                              why="two threads would answer one request",
                              fix="leave out start(), and contextlib.closing(session) in the place of `with session`")

    def compute(self) -> None:
        """answer(), whose chunk is there for `pop` after deliver() only: for simulations in which it comes later."""
        self._require_no_worker("compute")
        self._check(self._library.vlart_async_compute(self._open()))

    def deliver(self) -> None:
        """Hand over the chunk of the last compute()."""
        self._check(self._library.vlart_async_deliver(self._open()))

    def write(self, name: str, array: Any) -> None:
        """Session.write, into the next observation."""
        source = self.session.source_index(name)
        given = tensor_arguments(name, array, self._path, self.session.source_dtype(source))  # may run caller's code
        self._call(self._library.vlart_async_write, source, *given, c.byref(self._diag))

    def write_all(self, arrays: Mapping[str, Any], observation: int = 0, time_us: int = 0) -> None:
        """Session.write_all: one observation, from any thread; the next request hands the newest one over."""
        self._owner.require(self._path)
        diag, given = Diag(), self.session.tensor_set(arrays)
        name, time_us = whole("observation", observation, c.c_uint64), whole("time_us", time_us, c.c_uint64)
        with self._use:
            check(self._library.vlart_async_write_all(self._open(), given.tensors, len(given.tensors), name, time_us,
                                                      c.byref(diag)), diag, str(self._path))

    def begin(self, arrays: Mapping[str, Any], timeout_s: float = 60.0, observation: int = 0) -> None:
        """Begin an episode with its first observation, and wait for its first chunk, the robot standing still: from
        then on `pop` answers every tick. arrays, observation: as of `write_all`. For a started worker. Raises
        RuntimeFailure if the observation gives no chunk (which source or stage it is, is said) or none in time (status
        DEADLINE_MISSED)."""
        if not isinstance(timeout_s, (int, float, np.number)) or not timeout_s >= 0:
            raise ConfigError(f"timeout_s is {timeout_s}", where="AsyncSession.begin", why="it is a time, in seconds",
                              fix="give a number that is not negative")
        self.cancel("episode")
        self.write_all(arrays, observation)
        if not self.request():
            self._require_chunk()
        until = time.monotonic() + timeout_s
        while not (info := self.info()).remaining:
            if not info.busy:
                self._require_chunk()
            if time.monotonic() > until:
                raise RuntimeFailure("the episode has no first chunk yet", where=str(self._path),
                                     why=f"{timeout_s:g} s have passed since its first observation",
                                     fix="start the worker, or wait longer: timeout_s", status="DEADLINE_MISSED")
            time.sleep(5e-4)

    def select(self, backbone: str | None) -> None:
        """Session.select, from the next request on."""
        self._call(self._library.vlart_async_select, self.session.backbone_index(backbone), c.byref(self._diag))

    def time(self, now_us: int) -> None:
        """Session.time."""
        self._call(self._library.vlart_async_time, whole("now_us", now_us, c.c_uint64))

    def stamp(self, name: str, sequence: int, time_us: int) -> None:
        """Session.stamp."""
        self._call(self._library.vlart_async_stamp, self.session.source_index(name), frame_number(sequence),
                   whole("time_us", time_us, c.c_uint64), c.byref(self._diag))

    def sensor(self, name: str) -> SensorInfo:
        """Session.sensor."""
        found = SensorInfo()
        self._call(self._library.vlart_async_sensor, self.session.source_index(name), c.byref(found))
        return found

    def request(self) -> bool:
        """Hand the observation of this tick to the worker; sources not written keep their content. False: a source is
        older than allowed and nothing was handed over; the chunk continues to its end, then the safe action follows."""
        with self._taking_turn():
            status = self._library.vlart_async_request(self._open())
            if status != STALE_INPUT:
                self._check(status)
        return status != STALE_INPUT

    def pop(self) -> Popped:
        """The action of this tick. Raises RuntimeFailure with status QUEUE_EMPTY if there is no action of this episode
        yet, nor one to hold: wait until info().remaining is not 0."""
        with self._taking_turn():
            status = self._library.vlart_async_pop(self._open(), self._action.ctypes.data, self._action.size,
                                                   c.byref(self._diag))
            if status not in ANSWERED:
                self._check(status)
            self._library.vlart_async_popped(self._async, c.byref(self._info))
            return Popped(self._action.copy(), ANSWERED[status], self._info.observation, self._info.row)

    def cancel(self, chunk: str = "keep") -> None:
        """Discard the chunk being computed: it is for another instruction. chunk: the one being executed continues
        ("keep"), is dropped ("drop"), or is dropped and a new episode begins ("episode"). Then write and request."""
        if not isinstance(chunk, str) or chunk not in CANCEL:
            raise ConfigError(f'unknown way to cancel a chunk: "{chunk}"', where="AsyncSession.cancel",
                              why=f"known: {', '.join(CANCEL)}", fix="choose one of them")
        self._call(self._library.vlart_async_cancel, CANCEL[chunk])

    def info(self) -> AsyncInfo:
        """As vlart_async_info_t: tick, remaining, due, busy, late_ticks, chunks, discarded, failures, safe_actions,
        deadline_misses, latency_ns, status, idle_ticks."""
        found = AsyncInfo()
        self._call(self._library.vlart_async_info, c.byref(found))
        return found

    def trouble(self) -> RuntimeFailure | None:
        """Why the newest observation that was answered gave no chunk, since the last cancel: what libvlart says of it.
        None: it gave one, or none was answered."""
        diag = Diag()
        try:
            with self._taking_turn():
                check(self._library.vlart_async_trouble(self._open(), c.byref(diag)), diag, str(self._path))
        except RuntimeFailure as failure:
            return failure
        return None

    def close(self) -> None:
        """Stop the worker after its running stage, and release everything, after the calls that other threads are in;
        idempotent, and nothing in a forked process."""
        if not self._owner.is_this():
            return
        with self._use, self._turn:
            if self._async is not None:
                self._library.vlart_async_stop(self._async)
                if self._worker.ident is not None:
                    self._worker.join()
                self._library.vlart_async_close(self._async)
                self._async = None
                if self._recorder is not None:
                    self._recorder.release()
                self.session.close()

    def end(self) -> None:
        """close(), when the interpreter ends."""
        self.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_async", None) is not None and not sys.is_finalizing():
            self.close()

    def _require_chunk(self) -> None:
        """Raises RuntimeFailure with what libvlart says of the newest observation that gave no chunk, if one did."""
        failure = self.trouble()
        if failure is not None:
            raise RuntimeFailure("the first observation of the episode gave no chunk", where=failure.where,
                                 why=f"{failure.what}: {failure.why}", fix=failure.fix, status=failure.status)

    def _open(self) -> c.c_void_p:
        self._owner.require(self._path)
        if self._async is None:
            raise RuntimeFailure("the session is closed", where=str(self._path), why="close() was called",
                                 fix="open a new AsyncSession", status="BAD_ARGUMENT")
        return self._async

    def _taking_turn(self) -> threading.RLock:
        """Not in a forked process, where another thread may have had the lock."""
        self._owner.require(self._path)
        return self._turn

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        with self._taking_turn():
            self._check(function(self._open(), *arguments))

    def _check(self, status: int) -> None:
        check(status, self._diag, str(self._path))
