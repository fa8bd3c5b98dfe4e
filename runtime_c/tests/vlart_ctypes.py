"""libvlart through ctypes, as thin as the tests need it."""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Self

import numpy as np
from header_structs import Struct, header_structs
from sample_bundles import DTYPES

from vlart import vocabulary

NUMPY = {vocabulary.DTYPES[name]: dtype for dtype, name in DTYPES.items()}


U32, U64, F32P = c.c_uint32, c.c_uint64, c.POINTER(c.c_float)
STRUCTS = header_structs()
Diag, SessionOptions = STRUCTS["vlart_diag_t"], STRUCTS["vlart_session_options_t"]
BundleInfo, ValueInfo = STRUCTS["vlart_bundle_info_t"], STRUCTS["vlart_value_info_t"]
SourceInfo, StageInfo = STRUCTS["vlart_source_info_t"], STRUCTS["vlart_stage_info_t"]
QueueInfo, StageStats = STRUCTS["vlart_queue_info_t"], STRUCTS["vlart_stage_stats_t"]
Totals = STRUCTS["vlart_session_totals_t"]


class Failure(Exception):
    def __init__(self, name: str, diag: Diag):
        self.status = name
        self.what, self.where, self.why, self.fix = (
            getattr(diag, k).decode(errors="replace") for k in ("what", "where", "why", "fix"))
        super().__init__(f"{name}: {self.what} | {self.where} | {self.why} | {self.fix}")


class Library:
    def __init__(self, path: Path):
        self.c = c.CDLL(str(path))
        self.c.vlart_status_name.restype = c.c_char_p
        self.c.vlart_status_help.restype = c.c_char_p

    def check(self, status: int, diag: Diag | None = None) -> None:
        if status != 0:
            raise Failure(self.c.vlart_status_name(status).decode(), diag or Diag())

    def call(self, function: str, *arguments) -> None:
        """Calls a function whose diagnostic comes before its last argument."""
        diag = Diag()
        self.check(getattr(self.c, function)(*arguments[:-1], c.byref(diag), arguments[-1]), diag)


class Policy:
    """An open bundle with, on request, a session."""

    def __init__(self, library: Library, root: Path):
        self.lib, self.session = library, None
        size, self.bundle = c.c_size_t(), c.c_void_p()
        path = str(root).encode()
        library.call("vlart_bundle_required_bytes", path, c.byref(size))
        self.bundle_arena = c.create_string_buffer(size.value)
        library.call("vlart_bundle_open", path, None, self.bundle_arena, size, c.byref(self.bundle))

    def start(self, engine: str | None, threads: int = 1, **further) -> Policy:
        """engine: the library of the bundle's, ONNX Runtime's or OpenVINO's."""
        library = engine and engine.encode()
        options = SessionOptions(**{"ort_library": library, "openvino_library": library} | further, threads=threads)
        size, session = c.c_size_t(), c.c_void_p()
        self.lib.call("vlart_session_required_bytes", self.bundle, c.byref(options), c.byref(size))
        self.session_arena = c.create_string_buffer(size.value)
        self.lib.call("vlart_session_init", self.bundle, c.byref(options), self.session_arena, size, c.byref(session))
        self.session = session
        return self

    def close(self) -> None:
        self.lib.c.vlart_session_close(self.session)
        self.lib.c.vlart_bundle_close(self.bundle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def info(self, function: str, struct: type[Struct], *arguments) -> Struct:
        out = struct()
        self.lib.check(getattr(self.lib.c, function)(*arguments, c.byref(out)))
        return out

    def find(self, kind: str, name: str) -> int:
        index = U32()
        self.lib.check(getattr(self.lib.c, f"vlart_bundle_find_{kind}")(self.bundle, name.encode(), c.byref(index)))
        return index.value

    def tick(self, function: str, *arguments) -> None:
        diag = Diag()
        self.lib.check(getattr(self.lib.c, function)(self.session, *arguments, c.byref(diag)), diag)

    def write(self, name: str, array: np.ndarray) -> None:
        array = np.asarray(array, order="C")
        dims = (U64 * max(1, array.ndim))(*array.shape)
        self.tick("vlart_session_write", self.find("source", name), array.ctypes.data_as(c.c_void_p),
                  c.c_size_t(array.nbytes), vocabulary.DTYPES[DTYPES[array.dtype]], array.ndim, dims)

    def step(self, deadline_us: int | None = None) -> None:
        if deadline_us is None:
            self.tick("vlart_session_step")
        else:
            self.tick("vlart_session_step_deadline", U64(deadline_us))

    def run(self, inputs: dict[str, np.ndarray]) -> None:
        for name, array in inputs.items():
            self.write(name, array)
        self.step()

    def read(self, name: str) -> np.ndarray:
        value = self.find("value", name)
        info = self.info("vlart_bundle_value", ValueInfo, self.bundle, value)
        out = np.zeros(tuple(info.dims[: info.rank]), NUMPY[info.dtype])
        self.tick("vlart_session_read", value, out.ctypes.data_as(c.c_void_p), c.c_size_t(out.nbytes))
        return out

    def pop(self) -> np.ndarray:
        dim = self.info("vlart_bundle_info", BundleInfo, self.bundle).action_dim
        action = np.zeros(dim, np.float32)
        self.tick("vlart_session_pop", action.ctypes.data_as(F32P), c.c_size_t(dim))
        return action

    def tick_invalidate(self) -> None:
        self.lib.check(self.lib.c.vlart_session_invalidate(self.session))

    def queue(self) -> QueueInfo:
        return self.info("vlart_session_queue", QueueInfo, self.session)

    def totals(self) -> Totals:
        return self.info("vlart_session_totals", Totals, self.session)

    def runs(self) -> dict[str, int]:
        count = self.info("vlart_bundle_info", BundleInfo, self.bundle).stage_count
        return {self.info("vlart_bundle_stage", StageInfo, self.bundle, i).name.decode():
                self.info("vlart_session_stats", StageStats, self.session, i).runs for i in range(count)}
