"""`Session`: a running policy. It uses the same code path as a C program: all work is done in libvlart."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vlacompile.bundle.plan.binary import read_plan
from vlacompile.bundle.plan.plan import Plan
from vlacompile.errors import BundleError, ConfigError, RuntimeFailure, nearest
from vlacompile.runtime.library import (
    Diag,
    OpenOptions,
    QueueInfo,
    SensorInfo,
    SensorOptions,
    SessionOptions,
    StageStats,
    Totals,
    check,
    libvlart,
    onnxruntime_library,
    tvm_libraries,
)
from vlacompile.vocabulary import DTYPES, NUMPY_DTYPES, dtype_name

CONTROL, _CONTROL = "", 0xFFFFFFFF  # the stages outside all lanes, in Python and in vlart_lanes.h
_ALL = 0xFFFFFFFF  # VLART_BACKBONE_ALL
ACCEPT = {"not finite": 1, "out of range": 2, "stale": 4, "denormal": 8}
RECORDED = ("out of range", "stale")  # what a replay of recordings accepts


@dataclass(frozen=True)
class StageTimes:
    """runs: completed runs of the stage since the session began; times in microseconds."""

    runs: int
    last_us: float
    total_us: float
    min_us: float
    max_us: float


@dataclass(frozen=True)
class Stats:
    """stages: {name: StageTimes}. skipped: stages that were up to date, over all steps."""

    stages: dict[str, StageTimes]
    steps: int
    skipped: int
    deadline_misses: int
    last_step_us: float

    def runs(self) -> dict[str, int]:
        return {name: s.runs for name, s in self.stages.items()}


class Session:
    """A running instance of a bundle; to be used by one thread at a time.

    path: the bundle directory. threads: of the inference engine, 0: its own choice. engine_library: path of
    libonnxruntime; None: that of the installed package. verify_files: check the checksums of all files when opening (a
    damaged bundle is refused). stand_in: run the stages of a board's TensorRT engines with ONNX Runtime, from the same
    ONNX files: this checks their numbers, not the board's latency.
    tensorrt_library: on a board, path of libvlart_tensorrt.so; None: found by the loader. whole_tick: there, launch the
    stages that every tick runs as one.
    lane: run the stages of this lane only, or with CONTROL those of no lane (see Lanes). beside: a session of the same
    bundle, whose open bundle is shared.
    accept: sensor faults that are not refused, of "not finite", "out of range", "stale", "denormal" (vlart_sensors.h).
    max_age_ms: maximum age of observations for which the plan has none; 0: any age.
    Raises RuntimeFailure with libvlart's status and message.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, engine_library: str | Path | None = None,
                 verify_files: bool = True, stand_in: bool = False, tensorrt_library: str | Path | None = None,
                 whole_tick: bool = False, lane: str | None = None, beside: Session | None = None,
                 accept: Iterable[str] = (), max_age_ms: float = 0.0):
        self._bundle: c.c_void_p | None = None
        self._session: c.c_void_p | None = None
        accepted = _accepted(tuple(accept))
        self._library = libvlart()
        self._path = Path(path)
        self.plan: Plan = read_plan(self._path / "plan.bin")
        diag, size = Diag(), c.c_size_t()
        self._beside = beside  # that session closes the bundle
        bundle = beside._bundle if beside is not None else self._open(verify_files, diag)
        engine = str(engine_library or onnxruntime_library()).encode()
        tvm = {option: path and str(path).encode() for option, path in tvm_libraries().items()}
        session_options = SessionOptions(ort_library=engine, threads=threads, **tvm,
                                         stand_in=int(stand_in), whole_tick=int(whole_tick),
                                         tensorrt_library=tensorrt_library and str(tensorrt_library).encode(),
                                         lane=self._lane_option(lane))
        self._call(self._library.vlart_session_required_bytes, bundle, c.byref(session_options), c.byref(diag),
                   c.byref(size), diag=diag)
        self._session_arena = c.create_string_buffer(size.value)
        session = c.c_void_p()
        self._call(self._library.vlart_session_init, bundle, c.byref(session_options), self._session_arena, size.value,
                   c.byref(diag), c.byref(session), diag=diag)
        self._session = session
        self._diag = diag
        sensors = SensorOptions(accept=accepted, max_age_us=round(1000 * max_age_ms))
        self._call(self._library.vlart_session_sensors, session, c.byref(sensors), c.byref(diag))
        self._sources = {name: i for i, name in enumerate(self.plan.source_names())}
        self._values = {v.name: i for i, v in enumerate(self.plan.values)}
        dim = self.plan.action.action_dim if self.plan.action else 0
        self._action = np.empty(dim, np.float32)

    def _open(self, verify_files: bool, diag: Diag) -> c.c_void_p:
        directory, size, bundle = str(self._path).encode(), c.c_size_t(), c.c_void_p()
        self._call(self._library.vlart_bundle_required_bytes, directory, c.byref(diag), c.byref(size), diag=diag)
        self._bundle_arena = c.create_string_buffer(size.value)
        options = OpenOptions(skip_file_checksums=int(not verify_files))
        self._call(self._library.vlart_bundle_open, directory, c.byref(options), self._bundle_arena, size.value,
                   c.byref(diag), c.byref(bundle), diag=diag)
        self._bundle = bundle
        return bundle

    def _lane_option(self, lane: str | None) -> int:
        names = [x.name for x in self.plan.lanes]
        if lane is None or lane == CONTROL:
            return 0 if lane is None else _CONTROL
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

    def time(self, now_us: int) -> None:
        """Set the current time in microseconds of the caller's clock, before the writes and steps that it applies to.
        Without this, ages are measured with CLOCK_MONOTONIC from the writes."""
        self._call(self._library.vlart_session_time, self._session, now_us)

    def stamp(self, name: str, sequence: int, time_us: int) -> None:
        """Sequence number (modulo 2**32) and capture time of the next write of a source. Raises RuntimeFailure with
        status STALE_INPUT if the number is not after the previous one: do not write that frame."""
        self._call(self._library.vlart_session_stamp, self._session, self.source_index(name), sequence & 0xFFFFFFFF,
                   time_us, c.byref(self._diag))

    def sensor(self, name: str) -> SensorInfo:
        """As vlart_sensor_info_t: writes, not_finite, out_of_range, denormal, stale, reordered, lost, age_us,
        max_age_us, element, number."""
        found = SensorInfo()
        self._call(self._library.vlart_session_sensor, self._session, self.source_index(name), c.byref(found))
        return found

    def source_index(self, name: str) -> int:
        """Raises RuntimeFailure if the policy has no such source."""
        if name not in self._sources:
            raise RuntimeFailure(f'no source is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._sources), fix="write one of the policy's sources")
        return self._sources[name]

    def source_dtype(self, index: int) -> str:
        return self.plan.values[self.plan.sources[index].value].type.dtype

    def write_text(self, name: str, text: str) -> None:
        """Tokenize a text with the bundle's own tokenizer into a source of token ids and its padding mask."""
        data = text.encode()
        self._call(self._library.vlart_session_write_text, self._session, self.source_index(name), data, len(data),
                   c.byref(self._diag))

    def select(self, backbone: str | None) -> None:
        """Run this backbone of the bundle from the next step (or observe) on; the default is the first. None: all of
        them, with the first one's chunk in the queue. Values computed for another backbone stay valid while their
        sources do not change."""
        self._call(self._library.vlart_session_select, self._session, self.backbone_index(backbone),
                   c.byref(self._diag))

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
            self._call(self._library.vlart_session_step_deadline, self._session, deadline_us, c.byref(self._diag))

    def observe(self) -> None:
        """Push what was written into the histories without replanning: runs only the stages that encode the newest
        observation. For a host that executes several actions per replan: of the ticks in between, those whose frames
        the next step still reads must be observed (all, or the last n - 1 before it). All histories advance together,
        with the first write to one of them after a step or observe."""
        self._call(self._library.vlart_session_observe, self._session, c.byref(self._diag))

    def reset(self) -> None:
        """Begin an episode: clear the queue and the histories; the next observation fills the histories."""
        self._call(self._library.vlart_session_reset, self._session)

    def read(self, name: str) -> np.ndarray:
        """A copy of a value: an output, a source, or a value passed between stages."""
        if name not in self._values:
            raise RuntimeFailure(f'no value is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._values), fix="read one of the plan's values")
        kind = self.plan.values[self._values[name]].type
        out = np.empty(kind.dims, NUMPY_DTYPES[kind.dtype])
        self._call(self._library.vlart_session_read, self._session, self._values[name], out.ctypes.data, out.nbytes,
                   c.byref(self._diag))
        return out

    def pop(self) -> np.ndarray:
        """The next action, [action_dim], decoded and consumed as the plan defines. Raises RuntimeFailure with status
        QUEUE_EMPTY when the executed part of the chunk is used up: write an observation and step."""
        self._call(self._library.vlart_session_pop, self._session, self._action.ctypes.data, self._action.size,
                   c.byref(self._diag))
        return self._action.copy()

    def queue(self) -> QueueInfo:
        """`remaining` actions, `stale` (a later step failed), `due` (execute_steps were popped: replan), `chunks`
        computed so far."""
        info = QueueInfo()
        self._call(self._library.vlart_session_queue, self._session, c.byref(info))
        return info

    def invalidate(self) -> None:
        """Mark every stage dirty, clear the queue and all chunks; sources and histories keep their content."""
        self._call(self._library.vlart_session_invalidate, self._session)

    def stats(self) -> Stats:
        stages = {}
        for i, stage in enumerate(self.plan.stages):
            row = StageStats()
            self._call(self._library.vlart_session_stats, self._session, i, c.byref(row))
            stages[stage.name] = StageTimes(row.runs, row.last_ns / 1e3, row.total_ns / 1e3, row.min_ns / 1e3,
                                            row.max_ns / 1e3)
        totals = Totals()
        self._call(self._library.vlart_session_totals, self._session, c.byref(totals))
        return Stats(stages, totals.steps, totals.stages_skipped, totals.deadline_misses, totals.last_step_ns / 1e3)

    def close(self) -> None:
        """Release the engines and the bundle; idempotent."""
        if self._session is not None:
            self._library.vlart_session_close(self._session)
            self._session = None
        if self._bundle is not None:
            self._library.vlart_bundle_close(self._bundle)
            self._bundle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_bundle", None) is not None:
            self.close()

    def _call(self, function: Callable[..., int], *arguments: Any, diag: Diag | None = None) -> None:
        if self._session is None and diag is None:
            raise RuntimeFailure("the session is closed", where=str(self._path), why="close() was called",
                                 fix="open a new Session", status="BAD_ARGUMENT")
        check(function(*arguments), diag or self._diag, str(self._path))


def _accepted(words: tuple[str, ...]) -> int:
    for word in words:
        if word not in ACCEPT:
            raise ConfigError(f'a session cannot accept "{word}"', where="Session(accept=...)",
                              why=nearest(word, ACCEPT),
                              fix=f"choose from {', '.join(ACCEPT)}")
    return sum({ACCEPT[w] for w in words})


# A source declared in a dtype that no engine accepts may be written in that dtype as well.
_TAKEN = frozenset({("float64", "f32"), ("float16", "f32"), ("uint16", "i32"), ("int16", "i32"), ("int8", "i32")})


def tensor_arguments(name: str, array: Any, where: Path, wanted: str) -> tuple:
    """(address, bytes, dtype, rank, dims) for a call of libvlart. wanted: the source's dtype in the plan. A contiguous
    NumPy array of that dtype is passed without a copy. Keep `array` alive until the call returns."""
    if hasattr(array, "detach"):  # a torch tensor; torch itself is not needed at run time
        array = array.detach().cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    array = np.asarray(array)
    if (array.dtype.name, wanted) in _TAKEN:
        array = array.astype(NUMPY_DTYPES[wanted])
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    dtype = dtype_name(array.dtype.str)
    if dtype is None:
        raise RuntimeFailure(f'"{name}" was given {array.dtype}', where=str(where), status="WRONG_DTYPE",
                             why=f"known: {', '.join(NUMPY_DTYPES)}", fix="convert the array")
    dims = (c.c_uint64 * max(1, array.ndim))(*array.shape)
    dims.array = array  # keeps it alive as long as the arguments
    return c.c_void_p(array.ctypes.data), array.nbytes, DTYPES[dtype], array.ndim, dims


__all__ = ["BundleError", "Session", "StageTimes", "Stats"]
