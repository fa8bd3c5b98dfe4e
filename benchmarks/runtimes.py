"""libvlart compared with alternative runtimes: `python -m benchmarks.runtimes [--prepare] [--record]`.

The same stages (`runtime_stages.py`: an almost empty one, and one of real size) in libvlart with ONNX Runtime, ONNX
Runtime alone, ExecuTorch (XNNPACK, and its own kernels), TVM (default and tuned schedules) and IREE.
`--prepare` makes the artefacts once, with IREE in an environment of its own under build/peers. Then each runtime runs
in
processes of its own (`runtime_worker.py`; C++ for ExecuTorch), one thread, in rounds with a rotating order: bytes to be
shipped, static data, time from process start to the first result, latency per call including the input copy, resident
memory. Every runtime must reproduce libvlart's outputs on every input. ONNX Runtime, TVM and IREE get the bundle's ONNX
file; ExecuTorch, which cannot read ONNX, PyTorch's export of the same function. Writes build/bench/runtimes.json; with
--record profiles/host/runtimes.json. To be recorded on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vlacompile.profile import machine
from vlart.runtime.library import onnxruntime_library, tvm_libraries

ROOT = Path(__file__).resolve().parents[1]
WORK, RECORDED = ROOT / "build" / "bench" / "runtimes", ROOT / "profiles" / "host" / "runtimes.json"
PEER = ROOT / "build" / "peers" / "iree"
IREE_PACKAGES = ("iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "onnx==1.23.2", "numpy")
STAGES = ("nothing", "blocks")
INPUTS = 4
TOLERANCE = 1e-4  # max-abs difference from libvlart's result for the same input
TRIALS = 256  # candidates that TVM builds and times for a stage
EXECUTORCH = {"ExecuTorch XNNPACK": "xnnpack.pte", "ExecuTorch kernels": "kernels.pte"}
NAMES = ("bare", "libvlart", "ONNX Runtime", *EXECUTORCH, "TVM", "TVM searched", "IREE")
ARTEFACT = {"libvlart": "stage.vlab", "ONNX Runtime": "stage.onnx", **EXECUTORCH, "IREE": "stage.vmfb",
            "TVM": "stage.so", "TVM searched": "searched.so"}


def executorch_home() -> Path:
    return Path(importlib.util.find_spec("executorch").submodule_search_locations[0])


def prepare(trials: int) -> None:
    """Every artefact, in build/bench/runtimes/STAGE."""
    import torch

    from benchmarks import runtime_stages

    _install_iree()
    _build_executorch()
    for name in STAGES:
        folder = WORK / name
        folder.mkdir(parents=True, exist_ok=True)
        policy = runtime_stages.policy(name)
        shape = tuple(policy.example_inputs["x"].shape)
        inputs = np.stack([torch.randn(shape, generator=torch.Generator().manual_seed(i)).numpy()
                           for i in range(INPUTS)])
        np.save(folder / "inputs.npy", inputs)
        inputs.tofile(folder / "inputs.bin")
        _prepare_bundle(policy, folder)
        _prepare_tvm(folder, trials)
        _prepare_executorch(policy, folder)
        _prepare_iree(folder)
        print(f"prepared {name}", flush=True)


def _install_iree() -> None:
    python = PEER / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
    if not (PEER / "bin" / "iree-compile").is_file():
        subprocess.run([python, "-m", "pip", "install", "--quiet", *IREE_PACKAGES], check=True)


def _build_executorch() -> None:
    home, out = executorch_home(), WORK / "executorch"
    WORK.mkdir(parents=True, exist_ok=True)
    libraries = ["executorch", "executorch_threadpool", "executorch_backend_xnnpack", "executorch_kernels_optimized",
                 "executorch_kernels_quantized"]
    defines = ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED"]  # as in the package's build
    includes = [f"-I{home}/include", f"-I{home}/include/executorch/runtime/core/portable_type/c10"]
    subprocess.run(["g++", "-std=c++17", "-O2", "-Wno-deprecated-declarations", *defines, *includes,
                    ROOT / "benchmarks" / "runtime_executorch.cpp", "-o", out, f"-L{home}/lib",
                    f"-Wl,-rpath,{home}/lib", "-Wl,--no-as-needed", *(f"-l{n}" for n in libraries)], check=True)


def _prepare_bundle(policy, folder: Path) -> None:
    """The bundle, and its one stage as one ONNX file."""
    import onnx

    import vlacompile as vc

    built = vc.build(policy, out=folder / "stage.vlab")
    stages = list((built.path / "stages").glob("*.onnx"))
    assert len(stages) == 1, f"{len(stages)} stages"
    onnx.save(onnx.load(stages[0]), folder / "stage.onnx")


def _prepare_tvm(folder: Path, trials: int) -> None:
    """The ONNX file through TVM, compiled as by a recipe's stages.tvm: for x86-64-v3 if this machine is one."""
    import onnx_ir as ir

    from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
    from vlacompile.compiler.emit.tvm.stage import compile_tvm

    (folder / "tvm.json").write_text(json.dumps({"runtime": str(tvm_libraries()["tvm_library"])}), encoding="utf-8")
    for name, count in (("TVM", 0), ("TVM searched", trials)):
        made = compile_tvm(OnnxStage("stage", ir.load(folder / "stage.onnx"), {}), trials=count)
        (folder / ARTEFACT[name]).write_bytes(made.library)
    found = {key: made.report["schedules"][key] for key in ("kernels", "found", "tried")}
    assert found["found"] > 0, f"TVM's search found no schedule in {found['tried']} candidates"
    (folder / "searched.json").write_text(json.dumps(found), encoding="utf-8")


def _prepare_executorch(policy, folder: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from benchmarks.engines import positional

    for name, partitioners in (("xnnpack.pte", [XnnpackPartitioner()]), ("kernels.pte", [])):
        exported = torch.export.export(positional(policy), tuple(policy.example_inputs.values()), strict=False)
        lowered = to_edge_transform_and_lower(exported, partitioner=partitioners)
        (folder / name).write_bytes(lowered.to_executorch().buffer)


def _prepare_iree(folder: Path) -> None:
    """For this exact processor: the other runtimes select kernels at run time."""
    tools = PEER / "bin"
    subprocess.run([tools / "iree-import-onnx", folder / "stage.onnx", "--opset-version", "20",
                    "-o", folder / "stage.mlir"], check=True)
    subprocess.run([tools / "iree-compile", folder / "stage.mlir", "--iree-hal-target-device=local",
                    "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host",
                    "--iree-opt-level=O3", "-o", folder / "stage.vmfb"], check=True)


def libraries(name: str) -> list[Path]:
    """Files to be shipped besides the artefact."""
    home = executorch_home() / "lib"
    ort, ours = Path(onnxruntime_library()), ROOT / "build" / "runtime_c" / "libvlart.so"
    match name:
        case "bare":
            return []
        case "libvlart":
            return [ours, ort]
        case "ONNX Runtime":
            return [ort]
        case "IREE":
            return [next(p for p in PEER.rglob("_runtime.cpython*.so") if p.parent.name == "_runtime_libs")]
        case "TVM" | "TVM searched":
            return [tvm_libraries()[option] for option in ("tvm_ffi_library", "tvm_library")]
    parts = ("", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack")
    return [home / f"libexecutorch{p}.so" for p in parts]


def artefact_bytes(path: Path) -> int:
    """Size; for a bundle without its golden vectors, which a robot does not read."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and "golden" not in p.parts]
    return sum(p.stat().st_size for p in files)


def sections(paths: list[Path]) -> dict[str, int]:
    """{"text", "data", "bss"} of all of them, by `size`."""
    total = {"text": 0, "data": 0, "bss": 0}
    for path in paths:
        row = subprocess.run(["size", path], capture_output=True, text=True, check=True).stdout.splitlines()[1].split()
        total = {k: total[k] + int(row[i]) for i, k in enumerate(total)}
    return total


class Worker:
    """One process of a runtime, with one stage loaded. start_ms: until its first result; outputs: for every input."""

    def __init__(self, name: str, stage: str):
        self.name, folder, shape = name, WORK / stage, np.load(WORK / stage / "inputs.npy").shape
        dims = ",".join(map(str, shape[1:]))
        if name in EXECUTORCH:
            command = [WORK / "executorch", folder / EXECUTORCH[name], folder / "inputs.bin", str(shape[0]), dims]
        else:
            python = PEER / "bin" / "python" if name == "IREE" else sys.executable
            command = [python, "-m", "benchmarks.runtime_worker", name, folder / ARTEFACT.get(name, ""), dims]
        began = time.perf_counter()
        environment = {"OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                        env=environment)
        first = self._answer()["last"]
        self.start_ms = 1e3 * (time.perf_counter() - began)
        self.outputs = np.array([first, *(self.calls(1)["last"] for _ in range(shape[0] - 1))], np.float32)

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def calls(self, count: int) -> dict:
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """max-abs; infinite if the shapes differ or anything is not finite."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - wanted).max())


def check(workers: dict[str, Worker], stage: str) -> dict[str, float]:
    """{runtime: max-abs from libvlart's outputs}. Raises RuntimeError if one computes another function."""
    wanted = workers["libvlart"].outputs
    if min(apart(wanted[0], other) for other in wanted[1:]) <= TOLERANCE:
        raise RuntimeError(f"the outputs of {stage} do not depend on its input: comparing them proves nothing")
    found = {name: apart(worker.outputs, wanted) for name, worker in workers.items()}
    if found.pop("bare") <= TOLERANCE:  # negative control: it returns its input
        raise RuntimeError(f"a process that computes nothing reproduces the outputs of {stage}")
    wrong = {name: off for name, off in found.items() if not off <= TOLERANCE}
    if wrong:
        raise RuntimeError(f"{stage}: max-abs from libvlart is {wrong}, the limit is {TOLERANCE:g}")
    return found


def measure(stage: str, rounds: int, seconds: float, chosen: tuple[str, ...] = NAMES) -> dict[str, dict]:
    """{runtime: figures}. In each round all processes are started, then called, in rotating order."""
    series: dict[str, dict[str, list[float]]] = {n: {"start_ms": [], "call_us": [], "rss_mb": []} for n in chosen}
    for turn in range(rounds):
        names = chosen[turn % len(chosen):] + chosen[:turn % len(chosen)]
        workers: dict[str, Worker] = {}
        try:
            for name in names:
                workers[name] = Worker(name, stage)
            off = check(workers, stage)
            for name, worker in workers.items():
                once = statistics.median(worker.calls(3)["us"])
                answer = worker.calls(int(min(max(seconds * 1e6 / once, 3), 2000)))
                series[name]["start_ms"].append(worker.start_ms)
                series[name]["call_us"].append(statistics.median(answer["us"]))
                series[name]["rss_mb"].append(answer["rss_mb"])
        finally:
            for worker in workers.values():
                worker.close()
    return {n: {key: statistics.median(values) for key, values in series[n].items()} | {
        "max_abs": off.get(n), "artefact_bytes": artefact_bytes(WORK / stage / ARTEFACT[n]) if n in ARTEFACT else 0}
        for n in chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make the artefacts and stop")
    parser.add_argument("--trials", type=int, default=TRIALS,
                        help="with --prepare: candidates of TVM's search per stage")
    parser.add_argument("--rounds", type=int, default=7, help="processes per runtime and stage")
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds of calls in each process")
    parser.add_argument("--without", action="append", default=[], choices=NAMES[2:], help="leave a runtime out")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.trials)
        return
    chosen = tuple(n for n in NAMES if n not in arguments.without)
    stages = {stage: measure(stage, arguments.rounds, arguments.seconds, chosen) for stage in STAGES}
    figures = {
        "machine": machine.describe("apache-tvm", "executorch") | {"iree": IREE_PACKAGES[1].partition("==")[2]},
        "unit": "one thread; medians over processes, of calls the median of each process's; in turns",
        "rounds": arguments.rounds, "tolerance": TOLERANCE,
        "searched": {s: json.loads((WORK / s / "searched.json").read_text(encoding="utf-8")) for s in STAGES
                     if "TVM searched" in chosen},
        "shipped": {n: {"files": [p.name for p in libraries(n)], "bytes": sum(p.stat().st_size for p in libraries(n)),
                        **sections(libraries(n))} for n in chosen if n != "bare"},
        "libvlart": sections([libraries("libvlart")[0]]), "stages": stages}
    path = RECORDED if arguments.record else WORK.with_suffix(".json")
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for stage, rows in stages.items():
        for name, r in rows.items():
            print(f"{stage:<8} {name:<20} start {r['start_ms']:8.1f} ms  call {r['call_us']:10.2f} us  "
                  f"{r['rss_mb']:6.1f} MB resident")
    print(f"figures: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
