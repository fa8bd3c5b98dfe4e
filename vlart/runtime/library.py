"""ctypes declarations of libvlart, from `vlart.h`; finds the libraries and turns statuses into errors."""

from __future__ import annotations

import ctypes as c
import functools
import importlib.util
import operator
import os
from pathlib import Path
from typing import Any

from vlart.errors import ConfigError, RuntimeFailure

ABI_MAJOR = 1
MAX_LANES = 8  # VLART_MAX_LANES


def whole(name: str, number: Any, kind: Any) -> int:
    """A number that `kind`, an unsigned type of ctypes, holds as it is; ctypes itself would cut its bits off. Raises
    ConfigError."""
    most = 256 ** c.sizeof(kind) - 1
    try:
        found = operator.index(number)
    except TypeError:
        found = -1
    if not 0 <= found <= most:
        raise ConfigError(f"{name} is {number}", where="libvlart", why=f"a whole number from 0 to {most} is taken",
                          fix="give such a number")
    return found


class _Whole:
    """The type of an argument, for ctypes."""

    def __init__(self, kind: type[c._SimpleCData]):
        self.kind = kind

    def from_param(self, value: Any) -> c._SimpleCData:
        return value if isinstance(value, self.kind) else self.kind(whole("a number of this call", value, self.kind))


class _Struct(c.Structure):
    """A struct whose first field is its own size."""

    def __init__(self, **values: Any):
        kinds = {name: kind for name, kind, *_ in self._fields_}
        checked = {name: whole(name, value, kinds[name]) if kinds[name] in (c.c_uint32, c.c_uint64) else value
                   for name, value in values.items()}
        super().__init__(struct_size=c.sizeof(type(self)), **checked)


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
                ("reserved3", c.c_uint32), ("tvm_cuda_library", c.c_char_p), ("pool", c.c_void_p),
                ("native_code", c.c_uint32), ("reserved4", c.c_uint32), ("openvino_library", c.c_char_p),
                ("openvino_device", c.c_char_p), ("parallel", c.c_uint32), ("reserved5", c.c_uint32),
                ("weight_cache", c.c_void_p)]


class WeightCache(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("folder", c.c_char_p), ("mapped", c.c_uint32), ("written", c.c_uint32),
                ("refused", c.c_uint32), ("reserved", c.c_uint32), ("why", c.c_char * 128)]


class ThreadOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("priority", c.c_uint32), ("lock_memory", c.c_uint32),
                ("cores", c.c_void_p), ("core_count", c.c_size_t)]


class LaneInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("sequence", c.c_uint64), ("age_ns", c.c_uint64)]


class StageStats(_Struct):
    _fields_ = [("struct_size", c.c_size_t)] + [(n, c.c_uint64) for n in (
        "runs", "iterations", "last_ns", "total_ns", "min_ns", "max_ns", "last_iterations")]


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
                ("deadline_us", c.c_uint64), ("expire", c.c_uint32), ("reserved", c.c_uint32)]


class AsyncInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("tick", c.c_uint64), ("remaining", c.c_uint32), ("due", c.c_uint32),
                ("busy", c.c_uint32), ("late_ticks", c.c_uint32)] + [(n, c.c_uint64) for n in (
                    "chunks", "discarded", "failures", "safe_actions", "deadline_misses", "latency_ns")] + [
                        ("status", c.c_int), ("reserved", c.c_uint32), ("idle_ticks", c.c_uint64)]


class Tensor(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("source", c.c_uint32), ("dtype", c.c_uint32), ("rank", c.c_uint32),
                ("reserved", c.c_uint32), ("bytes", c.c_size_t), ("data", c.c_void_p), ("dims", c.c_void_p)]


class ActionInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("observation", c.c_uint64), ("chunk", c.c_uint64), ("row", c.c_uint32),
                ("clipped", c.c_uint32), ("lanes", c.c_uint64 * MAX_LANES)]


class SensorOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("accept", c.c_uint32), ("reserved", c.c_uint32),
                ("max_age_us", c.c_uint64)]


class SensorInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), *((n, c.c_uint64) for n in (
        "writes", "not_finite", "out_of_range", "denormal", "stale", "reordered", "lost", "age_us", "max_age_us")),
        ("element", c.c_uint32), ("number", c.c_float)]


class RecorderOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("path", c.c_char_p), ("file_bytes", c.c_uint64),
                ("track_bytes", c.c_uint64), ("tracks", c.c_uint32), ("full", c.c_uint32), ("flush_ms", c.c_uint32),
                ("sync_ms", c.c_uint32)]


class RecorderInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), *((n, c.c_uint64) for n in (
        "events", "bytes", "lost_events", "lost_bytes", "blocks", "lost_blocks", "syncs", "laps")),
        ("error", c.c_uint32), ("tracks", c.c_uint32)]


class LogInfo(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("plan", c.c_void_p), *((n, c.c_uint64) for n in (
        "plan_bytes", "recording", "wall_ns", "clock_ns", "block_count", "blocks", "first_block", "last_block",
        "missing_blocks", "torn_events", "events")), ("full", c.c_uint32), ("version_minor", c.c_uint32),
                *((n, c.c_uint64) for n in ("last_wall_ns", "last_clock_ns", "clock_changes"))]


class LogEvent(_Struct):
    _fields_ = [("struct_size", c.c_size_t), *((n, c.c_uint32) for n in ("kind", "role", "track", "lane")),
                ("sequence", c.c_uint64), ("time_ns", c.c_uint64), ("record", c.c_void_p), ("bytes", c.c_uint64)]


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


class CameraOptions(_Struct):
    _fields_ = [("struct_size", c.c_size_t), *((n, c.c_uint32) for n in (
        "pixels", "colours", "width", "height", "crop_x", "crop_y", "crop_width", "crop_height", "resize", "fit",
        "out_width", "out_height", "channels", "reserved")), ("jpeg_library", c.c_char_p)]


class CameraFrame(_Struct):
    _fields_ = [("struct_size", c.c_size_t), ("planes", c.c_void_p * 3), ("strides", c.c_size_t * 3),
                ("bytes", c.c_size_t * 3)]


_P, _U32, _U64, _SIZE = c.c_void_p, _Whole(c.c_uint32), _Whole(c.c_uint64), _Whole(c.c_size_t)
_FUNCTIONS = {
    "vlart_abi_version": (c.c_uint32, []),
    "vlart_status_name": (c.c_char_p, [c.c_int]),
    "vlart_bundle_required_bytes": (c.c_int, [c.c_char_p, _P, c.POINTER(c.c_size_t)]),
    "vlart_bundle_open": (c.c_int, [c.c_char_p, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_bundle_close": (None, [_P]),
    "vlart_bundle_plan": (c.c_int, [_P, c.POINTER(_P), c.POINTER(c.c_size_t)]),
    "vlart_content_required_bytes": (c.c_int, [c.c_char_p, _SIZE, c.c_char_p, _P, c.POINTER(c.c_size_t)]),
    "vlart_content_check": (c.c_int, [c.c_char_p, _SIZE, c.c_char_p, _P, _SIZE, _P]),
    "vlart_session_required_bytes": (c.c_int, [_P, _P, _P, c.POINTER(c.c_size_t)]),
    "vlart_session_init": (c.c_int, [_P, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_session_close": (None, [_P]),
    "vlart_session_write": (c.c_int, [_P, _U32, _P, _SIZE, _U32, _U32, c.POINTER(c.c_uint64), _P]),
    "vlart_session_step": (c.c_int, [_P, _P]),
    "vlart_session_step_deadline": (c.c_int, [_P, _U64, _P]),
    "vlart_session_observe": (c.c_int, [_P, _P]),
    "vlart_session_reset": (c.c_int, [_P]),
    "vlart_session_read": (c.c_int, [_P, _U32, _P, _SIZE, _P]),
    "vlart_session_pop_rows": (c.c_int, [_P, _P, _SIZE, _SIZE, _P]),
    "vlart_session_pop": (c.c_int, [_P, _P, _SIZE, _P]),
    "vlart_session_queue": (c.c_int, [_P, _P]),
    "vlart_session_invalidate": (c.c_int, [_P]),
    "vlart_session_stats": (c.c_int, [_P, _U32, _P]),
    "vlart_session_totals": (c.c_int, [_P, _P]),
    "vlart_async_required_bytes": (c.c_int, [_P, _P, _P, c.POINTER(c.c_size_t)]),
    "vlart_async_init": (c.c_int, [_P, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_async_serve": (c.c_int, [_P]),
    "vlart_async_answer": (c.c_int, [_P]),
    "vlart_async_stop": (None, [_P]),
    "vlart_async_close": (None, [_P]),
    "vlart_async_write": (c.c_int, [_P, _U32, _P, _SIZE, _U32, _U32, c.POINTER(c.c_uint64), _P]),
    "vlart_async_request": (c.c_int, [_P]),
    "vlart_async_pop": (c.c_int, [_P, _P, _SIZE, _P]),
    "vlart_async_cancel": (c.c_int, [_P, _U32]),
    "vlart_async_info": (c.c_int, [_P, _P]),
    "vlart_session_select": (c.c_int, [_P, _U32, _P]),
    "vlart_async_select": (c.c_int, [_P, _U32, _P]),
    "vlart_lane_required_bytes": (c.c_int, [_P, _U32, _P, c.POINTER(c.c_size_t)]),
    "vlart_lane_init": (c.c_int, [_P, _U32, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_lane_interrupt": (c.c_int, [_P]),
    "vlart_lane_step": (c.c_int, [_P, _P]),
    "vlart_session_follow": (c.c_int, [_P, _P, _P]),
    "vlart_session_followed": (c.c_int, [_P, _U32, _P]),
    "vlart_router_required_bytes": (c.c_int, [c.c_char_p, _P, _P, c.POINTER(c.c_size_t)]),
    "vlart_router_init": (c.c_int, [c.c_char_p, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_router_decide": (c.c_int, [_P, c.c_char_p, _P, _U32, _P, _P]),
    "vlart_router_report_outcome": (c.c_int, [_P, _U32, _P]),
    "vlart_router_drain": (c.c_int, [_P, _P]),
    "vlart_router_info": (c.c_int, [_P, _P]),
    "vlart_router_backbone": (c.c_char_p, [_P, _U32]),
    "vlart_session_write_all": (c.c_int, [_P, _P, _SIZE, _U64, _U64, _P]),
    "vlart_async_write_all": (c.c_int, [_P, _P, _SIZE, _U64, _U64, _P]),
    "vlart_session_popped": (c.c_int, [_P, _P]),
    "vlart_async_popped": (c.c_int, [_P, _P]),
    "vlart_async_trouble": (c.c_int, [_P, _P]),
    "vlart_thread_apply": (c.c_int, [_P, _P]),
    "vlart_session_sensors": (c.c_int, [_P, _P, _P]),
    "vlart_session_time": (c.c_int, [_P, _U64]),
    "vlart_session_stamp": (c.c_int, [_P, _U32, _U32, _U64, _P]),
    "vlart_session_sensor": (c.c_int, [_P, _U32, _P]),
    "vlart_async_time": (c.c_int, [_P, _U64]),
    "vlart_async_stamp": (c.c_int, [_P, _U32, _U32, _U64, _P]),
    "vlart_async_sensor": (c.c_int, [_P, _U32, _P]),
    "vlart_camera_required_bytes": (c.c_int, [_P, _P, c.POINTER(c.c_size_t)]),
    "vlart_camera_init": (c.c_int, [_P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_camera_convert": (c.c_int, [_P, _P, _P, _SIZE, _P]),
    "vlart_camera_close": (None, [_P]),
    "vlart_recorder_required_bytes": (c.c_int, [_P, _SIZE, _P, _P, c.POINTER(c.c_size_t)]),
    "vlart_recorder_init": (c.c_int, [_P, _SIZE, _P, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_recorder_close": (None, [_P]),
    "vlart_recorder_info": (c.c_int, [_P, _P]),
    "vlart_session_record": (c.c_int, [_P, _P, _P]),
    "vlart_async_record": (c.c_int, [_P, _P, _P]),
    "vlart_router_record": (c.c_int, [_P, _P, _P]),
    "vlart_log_required_bytes": (c.c_int, [c.c_char_p, _SIZE, c.c_char_p, _P, c.POINTER(c.c_size_t)]),
    "vlart_log_open": (c.c_int, [c.c_char_p, _SIZE, c.c_char_p, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_log_info": (c.c_int, [_P, _P]),
    "vlart_log_next": (c.c_int, [_P, _P]),
    "vlart_session_chunk": (c.c_int, [_P, _P, _SIZE, _P]),
    "vlart_session_stop_before": (c.c_int, [_P, _U32, c.c_int]),
    "vlart_async_compute": (c.c_int, [_P]),
    "vlart_async_deliver": (c.c_int, [_P]),
    "vlart_session_backbone": (c.c_int, [_P, c.POINTER(c.c_uint32)]),
    "vlart_session_write_text": (c.c_int, [_P, _U32, c.c_char_p, _SIZE, _P]),
    "vlart_tokenizer_required_bytes": (c.c_int, [_P, _SIZE, _SIZE, _P, c.POINTER(c.c_size_t)]),
    "vlart_tokenizer_open": (c.c_int, [_P, _SIZE, _SIZE, _P, _SIZE, _P, c.POINTER(_P)]),
    "vlart_tokenizer_encode": (c.c_int, [_P, c.c_char_p, _SIZE, _P, _SIZE, c.POINTER(c.c_size_t), _P]),
    "vlart_tokenizer_fill": (c.c_int, [_P, c.c_char_p, _SIZE, _P, _P, _SIZE, _P]),
}


def native_folder() -> Path:
    """Of libvlart and its programs: a wheel's vlart/native, else `build/runtime_c` of a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "native"
    return inside if inside.is_dir() else package.parent / "build" / "runtime_c"


def native_file(name: str) -> Path:
    """libvlart.so or one of its programs. Raises RuntimeFailure."""
    path = native_folder() / name
    if not path.is_file():
        raise RuntimeFailure(f"{name} is not built", where=str(path), why="no such file",
                             fix="run `make runtime` in the source tree", status="IO")
    return path


def libvlart_path() -> Path:
    return native_file("libvlart.so")


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


def openvino_library() -> Path | None:
    """Path of libopenvino_c: that of VLART_OPENVINO, or of the installed `openvino` package (found without importing
    it); None: not installed."""
    named = os.environ.get("VLART_OPENVINO")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("openvino")
    found = sorted((Path(spec.origin).parent / "libs").glob("libopenvino_c.so*")) if spec and spec.origin else []
    return found[0] if found else None


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
