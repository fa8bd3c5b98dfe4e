"""`Session`: a running policy. It uses the same code path as a C program: all work is done in libvlart."""

from __future__ import annotations

import ctypes as c
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlart.bundle.plan.plan import Plan
from vlart.errors import BundleError, ConfigError, RuntimeFailure, nearest
from vlart.runtime.library import (
    ActionInfo,
    Diag,
    QueueInfo,
    SensorInfo,
    SensorOptions,
    SessionOptions,
    StageStats,
    Tensor,
    Totals,
    WeightCache,
    check,
    libvlart,
    onnxruntime_library,
    openvino_library,
    tvm_libraries,
    whole,
)
from vlart.runtime.open_bundle import OpenBundle, path_bytes
from vlart.runtime.option_checks import accepted_faults, device_name, microseconds
from vlart.runtime.own_process import OwnProcess, let_children_end
from vlart.runtime.recorder import Recorder, recorder_of
from vlart.runtime.stage_times import StageTimes, Stats
from vlart.runtime.tensor_arguments import tensor_arguments
from vlart.runtime.threads import Threads, how_they_run
from vlart.vocabulary import NUMPY_DTYPES

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

CONTROL, CONTROL_OPTION = "", 0xFFFFFFFF  # the stages outside all lanes, in Python and in vlart_lanes.h
_ALL = 0xFFFFFFFF  # VLART_BACKBONE_ALL
RECORDED = ("out of range", "stale")  # what a replay of recordings accepts


@dataclass(frozen=True)
class TensorSet:
    """tensors: an array of vlart_tensor_t. kept: what they point to; keep the set until the call returns."""

    tensors: Any
    kept: tuple


class Session:
    """A running instance of a bundle; to be used by one thread at a time, apart from `write_all`, of the process that
    opened it: in a process forked from it (multiprocessing's default) every call but `close` is refused.

    path: the bundle directory. threads: of each engine, 0: its own choice. engine_library: path of
    libonnxruntime; None: that of the installed package. verify_files: check the checksums of all files when opening (a
    damaged bundle is refused). stand_in: run the stages of TensorRT and OpenVINO with ONNX Runtime, from the same ONNX
    files: this checks their numbers, not the latency of theirs.
    tensorrt_library: on a board, path of libvlart_tensorrt.so; None: found by the loader. whole_tick: there, launch the
    stages that every tick runs as one.
    lane: run the stages of this lane only, or with CONTROL those of no lane (see Lanes). beside: a session of the same
    bundle, whose open bundle is shared.
    accept: sensor faults that are not refused, of "not finite", "out of range", "stale", "denormal" (vlart_sensors.h).
    max_age_ms: maximum age of observations for which the plan has none; 0: any age.
    pool: how the threads of the engines' pools run; with cores, `threads` must be given. None: as the calling thread.
    native_code: load the stages that are machine code (TVM): the caller vouches for the bundle, because it built it or
    verified its signature (vlacompile.require_signed). Without it such a bundle is refused.
    openvino_device: what OpenVINO runs its stages on: "CPU", "GPU" or "NPU".
    record: a Recorder, or the path of a file that one writes as long as the session is open.
    parallel: stages that may run at the same time where none needs another's result, each in `threads` threads; 0: one,
    or, with threads = 0 and a bundle whose stages were timed, as it was timed, on the processors there are.
    weight_cache: a folder of this user's own in which ONNX Runtime's packed weights are kept, made if need be. The next
    start maps them instead of packing again; see `weight_cache`. Not for bundles that must be signed: no signature
    binds what lies there (docs/security.md).
    Raises RuntimeFailure with libvlart's status and message.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, engine_library: str | Path | None = None,
                 verify_files: bool = True, stand_in: bool = False, tensorrt_library: str | Path | None = None,
                 whole_tick: bool = False, lane: str | None = None, beside: Session | None = None,
                 accept: Iterable[str] = (), max_age_ms: float = 0.0, pool: Threads | None = None,
                 native_code: bool = False, openvino_device: str = "CPU", parallel: int = 0,
                 record: Recorder | str | Path | None = None, weight_cache: str | Path | None = None):
        self._bundle: OpenBundle | None = None
        self._recorder: Recorder | None = None
        self._session: c.c_void_p | None = None
        self._owner = OwnProcess("session")
        self.beneath: list[Any] = []  # what libvlart's session points into: kept as long as this one
        # A thread that is in a call is inside what `close` releases.
        self._use = threading.RLock()  # of `write_all`, which waits for no step
        self.turn = threading.RLock()  # of every other call
        self.before_close: Callable[[], None] | None = None  # ends what runs on this session
        device = device_name(openvino_device)
        accepted, max_age_us = accepted_faults(accept), microseconds("max_age_ms", max_age_ms)
        let_children_end()
        self._library = libvlart()
        self._path = Path(os.fsdecode(path_bytes("the bundle", path)))
        diag, size = Diag(), c.c_size_t()
        engine = path_bytes("engine_library", engine_library or onnxruntime_library())
        tensorrt = tensorrt_library and path_bytes("tensorrt_library", tensorrt_library)
        tvm = {option: path and os.fsencode(path) for option, path in tvm_libraries().items()}
        self._bundle = OpenBundle(self._path, verify_files) if beside is None else _bundle_of(beside).shared()
        self.plan: Plan = self._bundle.plan
        bundle = self._bundle.pointer
        openvino = openvino_library()
        session_options = SessionOptions(ort_library=engine, threads=threads, **tvm,
                                         openvino_library=openvino and os.fsencode(openvino),
                                         openvino_device=device, parallel=parallel,
                                         stand_in=int(bool(stand_in)), whole_tick=int(bool(whole_tick)),
                                         tensorrt_library=tensorrt, native_code=int(bool(native_code)),
                                         lane=self._lane_option(lane))
        self._weight_cache = WeightCache(
            folder=None if weight_cache is None else path_bytes("weight_cache", weight_cache))
        if self._weight_cache.folder is not None:
            session_options.weight_cache = c.addressof(self._weight_cache)
        pool_options = None if pool is None else how_they_run("pool", pool).options()
        if pool_options is not None:
            session_options.pool = c.addressof(pool_options)
        self._call(self._library.vlart_session_required_bytes, bundle, c.byref(session_options), c.byref(diag),
                   c.byref(size), diag=diag)
        self._session_arena = c.create_string_buffer(size.value)
        session = c.c_void_p()
        self._call(self._library.vlart_session_init, bundle, c.byref(session_options), self._session_arena, size.value,
                   c.byref(diag), c.byref(session), diag=diag)
        self._session = session
        self._diag = diag
        sensors = SensorOptions(accept=accepted, max_age_us=max_age_us)
        self._call(self._library.vlart_session_sensors, session, c.byref(sensors), c.byref(diag))
        self._sources = {name: i for i, name in enumerate(self.plan.source_names())}
        self._values = {v.name: i for i, v in enumerate(self.plan.values)}
        dim = self.plan.action.action_dim if self.plan.action else 0
        self._action = np.empty(dim, np.float32)
        self._record(record)

    def _record(self, record: Recorder | str | Path | None) -> None:
        recorder, self._owns_recorder = recorder_of(record)
        if recorder is not None:
            assert self._bundle is not None
            recorder.record(self._library.vlart_session_record, self.require_open(), self._bundle.pointer,
                            len(self.plan.lanes))
            self._recorder = recorder

    @property
    def weight_cache(self) -> WeightCache:
        """What became of the cache of packed weights: stages `mapped` from there, `written` to it, and `refused`, with
        the last reason in `why`."""
        return self._weight_cache

    @property
    def recorder(self) -> Recorder | None:
        """What records this session."""
        return self._recorder

    def _lane_option(self, lane: str | None) -> int:
        names = [x.name for x in self.plan.lanes]
        if lane is None or lane == CONTROL:
            return 0 if lane is None else CONTROL_OPTION
        if lane not in names:
            raise RuntimeFailure(f'no lane is called "{lane}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(lane, names), fix="`vlacompile inspect` lists them")
        return 1 + names.index(lane)

    def write(self, name: str, array: Any) -> None:
        """Set a source's content: a NumPy array or torch tensor of the plan's dtype and shape (for f32 also other
        floating-point dtypes, for i32 also narrower integers); for a source with a history the newest frame only.
        Writing equal bytes causes no stage to run, except those that read earlier frames. On any error the source keeps
        its previous content."""
        source = self.source_index(name)
        self._call(self._library.vlart_session_write, self._session, source,
                   *tensor_arguments(name, array, self._path, self.source_dtype(source)), c.byref(self._diag))

    def write_all(self, arrays: Mapping[str, Any], observation: int = 0, time_us: int = 0) -> None:
        """Set several sources as one observation: all of them, or on any error none. For any thread, such as a camera's
        callback: the next write, step or observe takes the newest set whole. observation: its name, such as a frame
        number, which `popped` tells of every action that is made of it; 0: the time. time_us: when it was captured, on
        the clock that ages are counted on; 0: when it is taken."""
        self._owner.require(self._path)
        diag, given = Diag(), self.tensor_set(arrays)
        name, time = whole("observation", observation, c.c_uint64), whole("time_us", time_us, c.c_uint64)
        with self._use:
            session, count = self.require_open(), len(given.tensors)
            check(self._library.vlart_session_write_all(session, given.tensors, count, name, time, c.byref(diag)), diag,
                  str(self._path))

    def tensor_set(self, arrays: Mapping[str, Any]) -> TensorSet:
        """A set, for a call of libvlart."""
        if not isinstance(arrays, Mapping):
            raise ConfigError(f"an observation is a {type(arrays).__name__}", where="write_all",
                              why="it is a dictionary: the content of each source under its name",
                              fix="give a dictionary")
        tensors, kept = (Tensor * len(arrays))(), []
        for tensor, (name, array) in zip(tensors, arrays.items(), strict=True):
            source = self.source_index(name)
            data, size, dtype, rank, dims = tensor_arguments(name, array, self._path, self.source_dtype(source))
            tensor.struct_size, tensor.source, tensor.dtype, tensor.rank = c.sizeof(Tensor), source, dtype, rank
            tensor.bytes, tensor.data, tensor.dims = size, data, c.cast(dims, c.c_void_p)
            kept.append(dims)
        return TensorSet(tensors, tuple(kept))

    def popped(self) -> ActionInfo:
        """What the action that was handed out last was made of: observation (its name), chunk, row, clipped (numbers
        that the plan's rate limit held back), lanes (of each lane, the step whose set it was: Lanes.popped). Raises
        RuntimeFailure, status QUEUE_EMPTY, if this episode has none."""
        found = ActionInfo()
        self._call(self._library.vlart_session_popped, self._session, c.byref(found))
        return found

    def time(self, now_us: int) -> None:
        """Set the current time in microseconds of the caller's clock, before the writes and steps that it applies to.
        Without this, ages are measured with CLOCK_MONOTONIC from the writes."""
        self._call(self._library.vlart_session_time, self._session, whole("now_us", now_us, c.c_uint64))

    def stamp(self, name: str, sequence: int, time_us: int) -> None:
        """Sequence number (modulo 2**32) and capture time of the next write of a source. Raises RuntimeFailure with
        status STALE_INPUT if the number is not after the previous one: do not write that frame."""
        self._call(self._library.vlart_session_stamp, self._session, self.source_index(name), frame_number(sequence),
                   whole("time_us", time_us, c.c_uint64), c.byref(self._diag))

    def sensor(self, name: str) -> SensorInfo:
        """As vlart_sensor_info_t: writes, not_finite, out_of_range, denormal, stale, reordered, lost, age_us,
        max_age_us, element, number."""
        found = SensorInfo()
        self._call(self._library.vlart_session_sensor, self._session, self.source_index(name), c.byref(found))
        return found

    def source_index(self, name: str) -> int:
        """Raises RuntimeFailure if the policy has no such source."""
        if not isinstance(name, str) or name not in self._sources:
            raise RuntimeFailure(f'no source is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._sources), fix="write one of the policy's sources")
        return self._sources[name]

    def source_dtype(self, index: int) -> str:
        return self.plan.values[self.plan.sources[index].value].type.dtype

    def write_text(self, name: str, text: str) -> None:
        """Tokenize a text with the bundle's own tokenizer into a source of token ids and its padding mask."""
        if not isinstance(text, str):
            raise ConfigError(f"a text is a {type(text).__name__}", where=f'write_text("{name}")',
                              why="an instruction is a str", fix="give a str")
        data = text.encode(errors="surrogatepass")  # which libvlart refuses, as all that is not UTF-8
        self._call(self._library.vlart_session_write_text, self._session, self.source_index(name), data, len(data),
                   c.byref(self._diag))

    def select(self, backbone: str | None) -> None:
        """Run this backbone of the bundle from the next step (or observe) on; the default is the first. None: all of
        them, with the first one's chunk in the queue. Values computed for another backbone stay valid while their
        sources do not change. Where the backbones are lengths of a text, the text decides, and none below this one is
        run."""
        self._call(self._library.vlart_session_select, self._session, self.backbone_index(backbone),
                   c.byref(self._diag))

    @property
    def action_output(self) -> str:
        """Name of the value that the last step's chunk is in: of several backbones, the output of the one that it ran.
        Raises RuntimeFailure for a policy without actions."""
        if self.plan.action is None:
            raise RuntimeFailure("the policy gives no actions", where=str(self._path), status="NOT_FOUND",
                                 why="none of its outputs feeds the action queue", fix="read an output by its name")
        ran = c.c_uint32()
        self._call(self._library.vlart_session_backbone, self._session, c.byref(ran))
        chosen = self.plan.backbones[ran.value:ran.value + 1]
        return self.plan.values[chosen[0].value if chosen else self.plan.action.value].name

    def backbone_index(self, backbone: str | None) -> int:
        """Raises RuntimeFailure if the bundle has no such backbone."""
        names = [b.name for b in self.plan.backbones]
        if backbone is not None and backbone not in names:
            raise RuntimeFailure(f'no backbone is called "{backbone}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(backbone, names) if names else "the bundle is a single policy",
                                 fix="select one of the bundle's backbones: `vlacompile inspect` lists them")
        return _ALL if backbone is None else names.index(backbone)

    def step(self, deadline_us: int | None = None) -> None:
        """Run the stages whose sources were written since they last ran. deadline_us: time limit from now; None: the
        plan's, 0: none."""
        if deadline_us is None:
            self._call(self._library.vlart_session_step, self._session, c.byref(self._diag))
        else:
            self._call(self._library.vlart_session_step_deadline, self._session,
                       whole("deadline_us", deadline_us, c.c_uint64), c.byref(self._diag))

    def stop_before(self, stage: int, status: int) -> None:
        """For replays: the next step or observe ends before this stage of the plan, with this status of libvlart, as
        the recorded one did."""
        self._call(self._library.vlart_session_stop_before, self._session, stage, status)

    def observe(self) -> None:
        """Push what was written into the histories without replanning: runs only the stages that encode the newest
        observation. For a host that executes several actions per replan: of the ticks in between, those whose frames
        the next step still reads must be observed (all, or the last n - 1 before it). All histories advance together,
        with the first write to one of them after a step or observe."""
        self._call(self._library.vlart_session_observe, self._session, c.byref(self._diag))

    def reset(self) -> None:
        """Begin an episode: nothing of the last one is handed out, averaged, continued or looked back on. What was
        observed before must be written again before the next step (RuntimeFailure, status SOURCE_UNSET); that
        observation fills the histories."""
        self._call(self._library.vlart_session_reset, self._session)

    def read(self, name: str) -> np.ndarray:
        """A copy of a value: an output, a source, or a value passed between stages."""
        if not isinstance(name, str) or name not in self._values:
            raise RuntimeFailure(f'no value is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._values), fix="read one of the plan's values")
        kind = self.plan.values[self._values[name]].type
        out = np.empty(kind.dims, NUMPY_DTYPES[kind.dtype])
        self._call(self._library.vlart_session_read, self._session, self._values[name], out.ctypes.data, out.nbytes,
                   c.byref(self._diag))
        return out

    def pop(self) -> np.ndarray:
        """The next action, [action_dim], decoded and consumed as the plan defines. Raises RuntimeFailure with status
        QUEUE_EMPTY when the executed part of the chunk is used up: write an observation and step; and with status
        ACTION_TOO_FAR where the plan's rate limit refuses it."""
        self._call(self._library.vlart_session_pop, self._session, self._action.ctypes.data, self._action.size,
                   c.byref(self._diag))
        return self._action.copy()

    def pop_rows(self, rows: int) -> np.ndarray:
        """The next actions [rows, action_dim], for a host that sends them in one message: all of them, or on an error
        none, so that a rate limit counts from what was sent. Raises as `pop`."""
        rows = whole("rows", rows, c.c_uint32)
        with self.turn:  # a step of another thread would bring more rows than there is room for
            out = np.empty((min(rows, self.queue().remaining), self._action.size), np.float32)  # more are refused
            self._call(self._library.vlart_session_pop_rows, self._session, out.ctypes.data, rows, self._action.size,
                       c.byref(self._diag))
        return out

    def queue(self) -> QueueInfo:
        """`remaining` actions, `stale` (a later step failed), `due` (execute_steps were popped: replan), `chunks`
        computed so far."""
        info = QueueInfo()
        self._call(self._library.vlart_session_queue, self._session, c.byref(info))
        return info

    def chunk(self) -> np.ndarray:
        """The newest good chunk as the queue took it, decoded and checked: f32[chunk_steps, action_dim]. Raises
        RuntimeFailure with status QUEUE_EMPTY before the first."""
        action = self.plan.action
        out = np.empty((action.chunk_steps, action.action_dim) if action else (0, 0), np.float32)
        self._call(self._library.vlart_session_chunk, self._session, out.ctypes.data, out.size, c.byref(self._diag))
        return out

    def invalidate(self) -> None:
        """Mark every stage dirty, clear the queue and all chunks; sources and histories keep their content."""
        self._call(self._library.vlart_session_invalidate, self._session)

    def stats(self) -> Stats:
        stages = {}
        for i, stage in enumerate(self.plan.stages):
            row = StageStats()
            self._call(self._library.vlart_session_stats, self._session, i, c.byref(row))
            stages[stage.name] = StageTimes(row.runs, row.last_ns / 1e3, row.total_ns / 1e3, row.min_ns / 1e3,
                                            row.max_ns / 1e3, row.iterations, row.last_iterations)
        totals = Totals()
        self._call(self._library.vlart_session_totals, self._session, c.byref(totals))
        return Stats(stages, totals.steps, totals.stages_skipped, totals.deadline_misses, totals.last_step_ns / 1e3)

    def close(self) -> None:
        """Release the engines and the bundle, after the calls that other threads are in; idempotent, and nothing in a
        forked process."""
        if not self._owner.is_this():
            return
        if self.before_close is not None:
            self.before_close()
        with self._use, self.turn:
            if self._session is not None:
                self._library.vlart_session_close(self._session)
                self._session = None
                self._end_recording()
            if self._bundle is not None:
                self._bundle.release()
                self._bundle = None

    def _end_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.release()
            if self._owns_recorder:
                self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # While the interpreter ends, a thread may still be inside the engine; the process frees the memory.
        if getattr(self, "_bundle", None) is not None and not sys.is_finalizing():
            self.close()

    def require_open(self) -> c.c_void_p:
        """Raises RuntimeFailure after close(), and in a forked process. Returns libvlart's session."""
        self._owner.require(self._path)
        if self._session is None:
            raise RuntimeFailure("the session is closed", where=str(self._path), why="close() was called",
                                 fix="open a new Session", status="BAD_ARGUMENT")
        return self._session

    def is_of_this_process(self) -> bool:
        """False in a process that was forked from the one that opened it."""
        return self._owner.is_this()

    def _call(self, function: Callable[..., int], *arguments: Any, diag: Diag | None = None) -> None:
        self._owner.require(self._path)  # before a lock that another thread had when the process was forked
        with self.turn:
            if diag is None:
                self.require_open()
            check(function(*arguments), diag or self._diag, str(self._path))


def frame_number(sequence: Any) -> int:
    """Of a sensor, which counts on after 2**32 - 1 from 0."""
    try:
        return operator.index(sequence) & 0xFFFFFFFF
    except TypeError:
        raise ConfigError(f"sequence is {sequence!r}", where="stamp", why="a frame's number is a whole number",
                          fix="give such a number") from None


def _bundle_of(session: Any) -> OpenBundle:
    if isinstance(session, Session):
        session._owner.require(session._path)
    if not isinstance(session, Session) or session._bundle is None:
        raise ConfigError("there is no open session to share a bundle with", where="Session(beside=...)",
                          why=f"it is {session!r}, or was closed", fix="give an open Session of the same bundle")
    return session._bundle


__all__ = ["BundleError", "Session", "StageTimes", "Stats"]
