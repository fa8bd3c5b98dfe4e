"""`Session`: a running policy. The same code path as the C program: everything is libvlart."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlacompile.bundle.layout import DTYPES, NUMPY_DTYPES, dtype_name
from vlacompile.errors import BundleError, RuntimeFailure, nearest
from vlacompile.plan.binary import read_plan
from vlacompile.plan.plan import Plan
from vlacompile.runtime.library import (Diag, OpenOptions, QueueInfo, SessionOptions, StageStats, Totals, check,
                                        libvlart, onnxruntime_library)



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
    """One running copy of a bundle; belongs to one thread at a time.

    path: the bundle directory. threads: of the engine, 0 for its own choice. engine_library: path of
    libonnxruntime; None for the one of the installed package. verify_files: compare the checksums of
    all files when opening (a damaged bundle is refused).
    Raises RuntimeFailure with libvlart's status and words.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, engine_library: str | Path | None = None,
                 verify_files: bool = True):
        self._bundle = self._session = None
        self._library = libvlart()
        self._path = Path(path)
        self.plan: Plan = read_plan(self._path / "plan.bin")
        diag, size = Diag(), c.c_size_t()
        directory = str(self._path).encode()
        self._call(self._library.vlart_bundle_required_bytes, directory, c.byref(diag), c.byref(size), diag=diag)
        self._bundle_arena = c.create_string_buffer(size.value)
        bundle = c.c_void_p()
        options = OpenOptions(skip_file_checksums=int(not verify_files))
        self._call(self._library.vlart_bundle_open, directory, c.byref(options), self._bundle_arena, size.value,
                   c.byref(diag), c.byref(bundle), diag=diag)
        self._bundle = bundle
        engine = str(engine_library or onnxruntime_library()).encode()
        session_options = SessionOptions(ort_library=engine, threads=threads)
        self._call(self._library.vlart_session_required_bytes, bundle, c.byref(session_options), c.byref(diag),
                   c.byref(size), diag=diag)
        self._session_arena = c.create_string_buffer(size.value)
        session = c.c_void_p()
        self._call(self._library.vlart_session_init, bundle, c.byref(session_options), self._session_arena, size.value,
                   c.byref(diag), c.byref(session), diag=diag)
        self._session = session
        self._diag = diag
        self._sources = {name: i for i, name in enumerate(self.plan.source_names())}
        self._values = {v.name: i for i, v in enumerate(self.plan.values)}
        dim = self.plan.action.action_dim if self.plan.action else 0
        self._action = np.empty(dim, np.float32)

    def write(self, name: str, array) -> None:
        """Give a source its content: a NumPy array or torch tensor of the plan's dtype and shape; of a source with
        a history the newest frame alone. Equal bytes re-run nothing, apart from what looks back on earlier frames.
        On any error the source keeps what it had."""
        if name not in self._sources:
            raise RuntimeFailure(f'no source is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._sources), fix="write one of the policy's sources")
        if hasattr(array, "detach"):  # a torch tensor; torch itself is not needed to run
            array = array.detach().cpu().numpy()
        array = np.asarray(array)
        if not array.flags.c_contiguous:
            array = array.copy(order="C")
        dtype = dtype_name(array.dtype.str)
        if dtype is None:
            raise RuntimeFailure(f'"{name}" was given {array.dtype}', where=str(self._path), status="WRONG_DTYPE",
                                 why=f"known: {', '.join(NUMPY_DTYPES)}", fix="convert the array")
        dims = (c.c_uint64 * max(1, array.ndim))(*array.shape)
        self._call(self._library.vlart_session_write, self._session, self._sources[name], array.ctypes.data,
                   array.nbytes, DTYPES[dtype], array.ndim, dims, c.byref(self._diag))

    def step(self, deadline_us: int | None = None) -> None:
        """Run the stages whose sources were written since they last ran. deadline_us: time limit from
        now; None for the plan's, 0 for none."""
        if deadline_us is None:
            self._call(self._library.vlart_session_step, self._session, c.byref(self._diag))
        else:
            self._call(self._library.vlart_session_step_deadline, self._session, deadline_us, c.byref(self._diag))

    def observe(self) -> None:
        """Take what was written into the histories without replanning: runs the stages that encode the newest
        observation, and no other. For a host that executes several actions per replan: of the ticks between, those
        whose frames the next step still sees must be observed (all, or the last n - 1 before it). All histories
        advance together, with the first write to one of them after a step or observe."""
        self._call(self._library.vlart_session_observe, self._session, c.byref(self._diag))

    def reset(self) -> None:
        """Begin an episode: empty the queue and forget the histories; the next observation fills them."""
        self._call(self._library.vlart_session_reset, self._session)

    def read(self, name: str) -> np.ndarray:
        """A copy of a value: an output, a source, or what a stage handed on."""
        if name not in self._values:
            raise RuntimeFailure(f'no value is called "{name}"', where=str(self._path), status="NOT_FOUND",
                                 why=nearest(name, self._values), fix="read one of the plan's values")
        kind = self.plan.values[self._values[name]].type
        out = np.empty(kind.dims, NUMPY_DTYPES[kind.dtype])
        self._call(self._library.vlart_session_read, self._session, self._values[name], out.ctypes.data, out.nbytes,
                   c.byref(self._diag))
        return out

    def pop(self) -> np.ndarray:
        """The next action, [action_dim], decoded and consumed as the plan says. Raises RuntimeFailure with
        status QUEUE_EMPTY when the executed part of the chunk is used up: write an observation and step."""
        self._call(self._library.vlart_session_pop, self._session, self._action.ctypes.data, self._action.size,
                   c.byref(self._diag))
        return self._action.copy()

    def queue(self) -> QueueInfo:
        """`remaining` actions, `stale` (a later step failed), `due` (execute_steps were popped: replan),
        `chunks` so far."""
        info = QueueInfo()
        self._call(self._library.vlart_session_queue, self._session, c.byref(info))
        return info

    def invalidate(self) -> None:
        """Make every stage dirty, empty the queue and forget all chunks; sources and histories keep their content."""
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
        """Release the engines and the bundle; twice is harmless."""
        if self._session is not None:
            self._library.vlart_session_close(self._session)
            self._session = None
        if self._bundle is not None:
            self._library.vlart_bundle_close(self._bundle)
            self._bundle = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_bundle", None) is not None:
            self.close()

    def _call(self, function, *arguments, diag: Diag | None = None) -> None:
        if self._session is None and diag is None:
            raise RuntimeFailure("the session is closed", where=str(self._path), why="close() was called",
                                 fix="open a new Session", status="BAD_ARGUMENT")
        check(function(*arguments), diag or self._diag, str(self._path))


__all__ = ["BundleError", "Session", "StageTimes", "Stats"]
