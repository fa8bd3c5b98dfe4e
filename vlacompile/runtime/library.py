"""ctypes declarations of libvlart, from `vlart.h`; finds the libraries and turns statuses into errors."""

from __future__ import annotations

import ctypes as c
import functools
import importlib.util
from pathlib import Path
from typing import Any

from vlacompile.errors import RuntimeFailure

ABI_MAJOR = 1


class _Struct(c.Structure):
    """A struct whose first field is its own size."""

    def __init__(self, **values: Any):
        super().__init__(struct_size=c.sizeof(type(self)), **values)


class Diag(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("status", c.c_int), ("what", c.c_char * 160), ("where", c.c_char * 256),
                ("why", c.c_char * 512), ("fix", c.c_char * 256)]


class OpenOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("skip_file_checksums", c.c_uint32), ("reserved", c.c_uint32)]


class SessionOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("ort_library", c.c_char_p), ("threads", c.c_uint32),
                ("reserved", c.c_uint32), ("backends", c.c_void_p), ("backend_count", c.c_size_t),
                ("tvm_ffi_library", c.c_char_p), ("tvm_library", c.c_char_p),
                ("stand_in", c.c_uint32), ("reserved2", c.c_uint32), ("tensorrt_library", c.c_char_p),
                ("tensorrt_trial", c.c_uint32), ("whole_tick", c.c_uint32), ("lane", c.c_uint32),
                ("reserved3", c.c_uint32), ("tvm_cuda_library", c.c_char_p)]


class LaneInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("sequence", c.c_uint64), ("age_ns", c.c_uint64)]


class StageStats(_Struct):
    _fields_ = [("struct_size", c.c_size_t)] + [(n, c.c_uint64) for n in (
        "runs", "iterations", "last_ns", "total_ns", "min_ns", "max_ns")]


class Totals(_Struct):
    _fields_ = [("struct_size", c.c_size_t)] + [(n, c.c_uint64) for n in (
        "steps", "stages_run", "stages_skipped", "deadline_misses", "deadline_overruns", "chunks_rejected",
        "backend_failures", "last_step_ns")]


class QueueInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("remaining", c.c_uint32), ("position", c.c_uint32),
                ("stale", c.c_uint32), ("due", c.c_uint32), ("chunks", c.c_uint64)]


class AsyncOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("lead_ticks", c.c_uint32), ("stale_ticks", c.c_uint32),
                ("deadline_ticks", c.c_uint32), ("safe", c.c_uint32), ("safe_action", c.c_void_p),
                ("deadline_us", c.c_uint64)]


class AsyncInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("tick", c.c_uint64), ("remaining", c.c_uint32), ("due", c.c_uint32),
                ("busy", c.c_uint32), ("late_ticks", c.c_uint32)] + [(n, c.c_uint64) for n in (
                    "chunks", "discarded", "failures", "safe_actions", "deadline_misses", "latency_ns")] + [
                        ("status", c.c_int), ("reserved", c.c_uint32)]


class SensorOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("accept", c.c_uint32), ("reserved", c.c_uint32),
                ("max_age_us", c.c_uint64)]


class SensorInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), *((n, c.c_uint64) for n in (
        "writes", "not_finite", "out_of_range", "denormal", "stale", "reordered", "lost", "age_us", "max_age_us")),
        ("element", c.c_uint32), ("number", c.c_float)]


class RouterOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("state", c.c_char_p), ("log_capacity", c.c_uint32),
                ("reserved", c.c_uint32)]


class RouterDecision(_Struct):
    _fields_ = ([("struct_size", c.c_size_t), ("sequence", c.c_uint64)]
                + [(n, c.c_uint32) for n in ("route", "cluster", "by", "level", "backbone", "backbone_count", "outcome",
                                             "reserved")]
                + [(n, c.c_double) for n in ("similarity", "delta", "tau")]
                + [(n, c.c_double * 4) for n in ("alpha", "beta", "probability", "cost_ms")]
                + [("text", c.c_char * 128)])


class RouterInfo(_Struct):
    _fields_ = ([("struct_size", c.c_size_t)]
                + [(n, c.c_uint32) for n in ("backbone_count", "route_count", "cluster_count", "embedding_dim")]
                + [("generation", c.c_uint64), ("recovered", c.c_uint32), ("log_count", c.c_uint32),
                   ("log_dropped", c.c_uint64)])


_P, _U32, _U64, _SIZE = c.c_void_p, c.c_uint32, c.c_uint64, c.c_size_t
_FUNCTIONS = {
    "vlart_abi_version": (_U32, []),
    "vlart_status_name": (c.c_char_p, [c.c_int]),
    "vlart_bundle_required_bytes": (c.c_int, [c.c_char_p, _P, c.POINTER(_SIZE)]),
    "vlart_bundle_open": (c.c_int, [c.c_char_p, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_bundle_close": (None, [_P]),
    "vlart_session_required_bytes": (c.c_int, [_P, _P, _P, c.POINTER(_SIZE)]),
    "vlart_session_init": (c.c_int, [_P, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_session_close": (None, [_P]),
    "vlart_session_write": (c.c_int, [_P, _U32, _P, _SIZE, _U32, _U32, c.POINTER(_U64), _P]),
    "vlart_session_step": (c.c_int, [_P, _P]),
    "vlart_session_step_deadline": (c.c_int, [_P, _U64, _P]),
    "vlart_session_observe": (c.c_int, [_P, _P]),
    "vlart_session_reset": (c.c_int, [_P]),
    "vlart_session_read": (c.c_int, [_P, _U32, _P, _SIZE, _P]),
    "vlart_session_pop": (c.c_int, [_P, _P, _SIZE, _P]),
    "vlart_session_queue": (c.c_int, [_P, _P]),
    "vlart_session_invalidate": (c.c_int, [_P]),
    "vlart_session_stats": (c.c_int, [_P, _U32, _P]),
    "vlart_session_totals": (c.c_int, [_P, _P]),
    "vlart_async_required_bytes": (c.c_int, [_P, _P, _P, c.POINTER(_SIZE)]),
    "vlart_async_init": (c.c_int, [_P, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_async_serve": (c.c_int, [_P]),
    "vlart_async_answer": (c.c_int, [_P]),
    "vlart_async_stop": (None, [_P]),
    "vlart_async_close": (None, [_P]),
    "vlart_async_write": (c.c_int, [_P, _U32, _P, _SIZE, _U32, _U32, c.POINTER(_U64), _P]),
    "vlart_async_request": (c.c_int, [_P]),
    "vlart_async_pop": (c.c_int, [_P, _P, _SIZE, _P]),
    "vlart_async_cancel": (c.c_int, [_P, _U32]),
    "vlart_async_info": (c.c_int, [_P, _P]),
    "vlart_session_select": (c.c_int, [_P, _U32, _P]),
    "vlart_async_select": (c.c_int, [_P, _U32, _P]),
    "vlart_lane_required_bytes": (c.c_int, [_P, _U32, _P, c.POINTER(_SIZE)]),
    "vlart_lane_init": (c.c_int, [_P, _U32, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_lane_step": (c.c_int, [_P, _P]),
    "vlart_session_follow": (c.c_int, [_P, _P, _P]),
    "vlart_session_followed": (c.c_int, [_P, _U32, _P]),
    "vlart_router_required_bytes": (c.c_int, [c.c_char_p, _P, _P, c.POINTER(_SIZE)]),
    "vlart_router_init": (c.c_int, [c.c_char_p, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_router_decide": (c.c_int, [_P, c.c_char_p, _P, _U32, _P, _P]),
    "vlart_router_report_outcome": (c.c_int, [_P, _U32, _P]),
    "vlart_router_drain": (c.c_int, [_P, _P]),
    "vlart_router_info": (c.c_int, [_P, _P]),
    "vlart_router_backbone": (c.c_char_p, [_P, _U32]),
    "vlart_session_sensors": (c.c_int, [_P, _P, _P]),
    "vlart_session_time": (c.c_int, [_P, _U64]),
    "vlart_session_stamp": (c.c_int, [_P, _U32, _U32, _U64, _P]),
    "vlart_session_sensor": (c.c_int, [_P, _U32, _P]),
    "vlart_async_time": (c.c_int, [_P, _U64]),
    "vlart_async_stamp": (c.c_int, [_P, _U32, _U32, _U64, _P]),
    "vlart_async_sensor": (c.c_int, [_P, _U32, _P]),
    "vlart_session_write_text": (c.c_int, [_P, _U32, c.c_char_p, _SIZE, _P]),
    "vlart_tokenizer_required_bytes": (c.c_int, [_P, _SIZE, _SIZE, _P, c.POINTER(_SIZE)]),
    "vlart_tokenizer_open": (c.c_int, [_P, _SIZE, _SIZE, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_tokenizer_encode": (c.c_int, [_P, c.c_char_p, _SIZE, _P, _SIZE, c.POINTER(_SIZE), _P]),
    "vlart_tokenizer_fill": (c.c_int, [_P, c.c_char_p, _SIZE, _P, _P, _SIZE, _P]),
}


def libvlart_path() -> Path:
    """libvlart.so: beside this file in a wheel, else in `build/runtime_c` of a source tree. Raises RuntimeFailure."""
    here = Path(__file__).parent
    places = (here / "libvlart.so", here.parents[1] / "build" / "runtime_c" / "libvlart.so")
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise RuntimeFailure("libvlart.so is not built", where=" or ".join(map(str, places)), why="no such file",
                             fix="run `make runtime` in the source tree", status="IO")
    return path


@functools.cache
def libvlart() -> c.CDLL:
    return open_libvlart(libvlart_path())


def open_libvlart(path: Path) -> c.CDLL:
    """Load a library and declare its functions. Raises RuntimeFailure if its ABI version differs."""
    library = c.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    version = library.vlart_abi_version()
    if version >> 16 != ABI_MAJOR:
        raise RuntimeFailure("libvlart has another ABI", where=str(path),
                             why=f"it has version {version >> 16}.{version & 0xFFFF}, this package needs {ABI_MAJOR}",
                             fix="rebuild it with `make runtime`", status="VERSION")
    return library


def onnxruntime_library() -> Path:
    """Path of libonnxruntime in the installed `onnxruntime` package (found without importing it)."""
    spec = importlib.util.find_spec("onnxruntime")
    where = Path(spec.origin).parent / "capi" if spec and spec.origin else None
    found = sorted(where.glob("libonnxruntime.so*")) if where else []
    if not found:
        raise RuntimeFailure("libonnxruntime is missing", where=str(where or "the Python environment"),
                             why="the package onnxruntime is not installed" if where is None else "it has no such file",
                             fix="pip install onnxruntime==1.32.0, or pass engine_library=", status="NO_BACKEND")
    return found[0]


def tvm_libraries() -> dict[str, Path | None]:
    """{session option: path} of TVM's installed libraries (found without importing them); None: not installed."""
    found = {}
    for option, package, name in (("tvm_ffi_library", "tvm_ffi", "libtvm_ffi.so"),
                                  ("tvm_library", "tvm", "libtvm_runtime.so"),
                                  ("tvm_cuda_library", "tvm", "libtvm_runtime_cuda.so")):
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / "lib" / name if spec and spec.origin else None
        found[option] = path if path and path.is_file() else None
    return found


def check(status: int, diag: Diag, where: str) -> None:
    """Raise RuntimeFailure with libvlart's own message."""
    if status == 0:
        return
    name = libvlart().vlart_status_name(status).decode()
    text = {f: getattr(diag, f).decode(errors="replace") for f in ("what", "where", "why", "fix")}
    raise RuntimeFailure(text["what"] or name, where=text["where"] or where, why=text["why"] or name,
                         fix=text["fix"] or "see vlart.h", status=name)
