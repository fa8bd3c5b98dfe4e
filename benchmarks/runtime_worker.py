"""One runtime in a process of its own: `python -m benchmarks.runtime_worker RUNTIME ARTEFACT SHAPE`, for `runtimes.py`.

Loads the artefact, runs it once and prints the output as a line of JSON; then reads numbers of calls from stdin, and
answers each with the latencies of that many calls, cycling over the inputs, and the last output. A call copies its
input in, runs, and makes the output readable by NumPy. Imports nothing but NumPy and the runtime.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array aligned to 64 bytes, which TVM's code assumes: with other alignment its vector loads crash."""
    room = np.empty(4 * math.prod(shape) + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start: start + 4 * math.prod(shape)].view(np.float32).reshape(shape)


def bare(artefact: Path, shape: tuple[int, ...]) -> Call:
    """No runtime: the cost of the process itself."""
    into = aligned(shape)

    def call(x: np.ndarray) -> np.ndarray:
        np.copyto(into, x)
        return into

    return call


def libvlart(artefact: Path, shape: tuple[int, ...]) -> Call:
    from vlart.runtime.session import Session

    session = Session(artefact, threads=1, native_code=True)  # built just now

    def call(x: np.ndarray) -> np.ndarray:
        session.write("x", x)
        session.step()
        return session.read("action")

    return call


def onnxruntime(artefact: Path, shape: tuple[int, ...]) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
    into, out = aligned(shape), session.get_outputs()[0]
    result = np.empty(out.shape, np.float32)
    binding = session.io_binding()
    binding.bind_input(session.get_inputs()[0].name, "cpu", 0, np.float32, shape, into.ctypes.data)
    binding.bind_output(out.name, "cpu", 0, np.float32, result.shape, result.ctypes.data)

    def call(x: np.ndarray) -> np.ndarray:
        np.copyto(into, x)
        session.run_with_iobinding(binding)
        return result

    return call


def tvm(artefact: Path, shape: tuple[int, ...]) -> Call:
    """Only tvm-ffi and the runtime library: the compiler's package is not loaded, and PyTorch, which tvm-ffi imports if
    it is available, is hidden."""
    sys.modules["torch"] = None
    try:
        import tvm_ffi
    finally:
        del sys.modules["torch"]

    libraries = json.loads((artefact.parent / "tvm.json").read_text(encoding="utf-8"))
    ctypes.CDLL(libraries["runtime"], mode=ctypes.RTLD_GLOBAL)
    machine = tvm_ffi.load_module(str(artefact))["vm_load_executable"]()
    machine["vm_initialization"](1, 0, 2)
    main = machine["main"]
    into = aligned(shape)
    given = tvm_ffi.from_dlpack(into)

    def call(x: np.ndarray) -> np.ndarray:
        np.copyto(into, x)
        result = main(given)
        return np.from_dlpack(result[0] if isinstance(result, tvm_ffi.Array) else result)

    return call


def iree(artefact: Path, shape: tuple[int, ...]) -> Call:
    from iree import runtime

    module = runtime.load_vm_flatbuffer_file(str(artefact), driver="local-sync")
    names = [n for n in module.vm_module.function_names if not n.startswith("__") and not n.endswith("$async")]
    main = module[names[0]]
    return lambda x: np.asarray(main(x))


RUNTIMES = {"bare": bare, "libvlart": libvlart, "ONNX Runtime": onnxruntime, "TVM": tvm, "TVM searched": tvm,
            "IREE": iree}


def resident_mb() -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def main() -> None:
    name, artefact, shape = sys.argv[1], Path(sys.argv[2]), tuple(map(int, sys.argv[3].split(",")))
    inputs = np.load((artefact if name == "bare" else artefact.parent) / "inputs.npy")
    call = RUNTIMES[name](artefact, shape)
    last = call(inputs[0])
    if "torch" in sys.modules:
        raise RuntimeError(f"{name} has loaded PyTorch, which would be included in the measurement")
    print(json.dumps({"last": last.ravel().tolist()}), flush=True)
    at = 0
    for line in sys.stdin:
        us = []
        for _ in range(int(line)):
            at += 1
            began = time.perf_counter_ns()
            last = call(inputs[at % len(inputs)])
            us.append((time.perf_counter_ns() - began) / 1e3)
        print(json.dumps({"us": us, "last": last.ravel().tolist(), "rss_mb": resident_mb()}), flush=True)


if __name__ == "__main__":
    main()
