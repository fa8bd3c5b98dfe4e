"""Stage -> shared object, compiled ahead of time by TVM: needs neither the board nor a vendor's compiler.

Owns the list of machines, the packages and tools needed for each, and the compiling process. The recipe chooses which
stages are compiled in this way (`stages.tvm`): without tuning, TVM's CPU code is hundreds of times slower than ONNX
Runtime's, so it is meant for stages that an engine rejects and for small heads.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
from vlart.errors import ConfigError, EmitError, nearest

MACHINES = ("x86_64", "aarch64", "sm_87")  # processors, and the GPU of Jetson Orin
# tvm-ffi 0.1.15 satisfies TVM 0.27's requirements, but saving a module crashes with it.
PACKAGES = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
CROSS_COMPILER = "aarch64-linux-gnu-g++"
CUDA = Path("/usr/local/cuda")
# The container of NVIDIA's device code, which TVM embeds as data: magic number; then u16 version, u16 size of the
# header in bytes, u64 size of the content in bytes.
FATBIN = bytes.fromhex("50ed55ba")


@dataclass(frozen=True)
class TvmStage:
    """library: bytes of the shared object, weights included. report: the compiler's; for a GPU the resources of every
    kernel."""

    name: str
    machine: str
    library: bytes
    report: dict


def chosen_stages(names: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    """The stages that match one of the recipe's patterns. Raises ConfigError for a pattern that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(n, pattern) for n in names):
            raise ConfigError(f'stages.tvm has "{pattern}", which matches no stage', where="the recipe",
                              why=nearest(pattern, names), fix="`vlacompile plan` lists the stages of a policy")
    return frozenset(n for n in names if any(fnmatchcase(n, p) for p in patterns))


def require_tvm() -> None:
    """Raises EmitError unless the packages are installed in the tested versions."""
    for package, version in PACKAGES.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != version:
            raise EmitError("the recipe gives stages to TVM, which is not installed", where="this Python environment",
                            why=f"{package} is {found}, {version} is needed",
                            fix="pip install 'vlacompile[tvm]', or take stages.tvm out of the recipe")


def compile_tvm(stage: OnnxStage, machine: str | None = None, *, host: str = "aarch64", trials: int = 0, seed: int = 0,
                known: dict | None = None) -> TvmStage:
    """machine: one of MACHINES, or another GPU's architecture ("sm_90"); None: this one. host: the processor that
    launches GPU kernels. known: schedules found before (tuning.scheduled). trials: candidates that are built and timed
    for kernels without a schedule; 0: they keep TVM's default. Raises EmitError if a tool is missing or TVM rejects a
    node."""
    machine = machine or platform.machine()
    on_gpu = machine.startswith("sm_")
    assert machine in MACHINES or on_gpu, machine
    processor = host if on_gpu else machine
    require_tvm()
    compiler = None if processor == platform.machine() else _tool(CROSS_COMPILER,
                                                                  "apt-get install g++-aarch64-linux-gnu")
    with tempfile.TemporaryDirectory() as folder:
        model, out, request = (Path(folder) / n for n in ("model.onnx", "stage.so", "request.json"))
        model.write_bytes(ir.to_proto(stage.model).SerializeToString(deterministic=True))
        request.write_text(json.dumps({"model": str(model), "machine": machine, "host": processor, "compiler": compiler,
                                       "out": str(out), "trials": trials, "seed": seed,
                                       "schedules": known or {"workloads": [], "records": []}}), encoding="utf-8")
        command = [sys.executable, "-m", "vlacompile.compiler.emit.tvm.worker", str(request)]
        done = subprocess.run(command, capture_output=True, text=True,
                              env=environment(Path(folder)) if on_gpu else None, check=False)
        if done.returncode or not out.is_file():
            raise _refused(stage, done)
        report = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
        if on_gpu:
            report["resources"] = gpu_resources(out, machine)
        return TvmStage(stage.name, machine, out.read_bytes(), report)


def _refused(stage: OnnxStage, done: subprocess.CompletedProcess) -> EmitError:
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    why = next((line for line in reversed(said) if re.match(r"\w*(Error|Exception)\b|.*not supported", line)),
               said[-1] if said else f"the compiler ended with status {done.returncode}")
    return EmitError("TVM does not compile the stage", where=f'stage "{stage.name}"', why=why,
                     fix="take the stage out of stages.tvm; TVM has no kernels for ONNX Runtime's own quantised layers")


def _tool(name: str, advice: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EmitError(f"{name} is missing", where="this machine", why="TVM's code is linked with it", fix=advice)
    return found


def environment(folder: Path) -> dict[str, str]:
    """Environment variables of a process in which TVM generates GPU machine code on a machine without a GPU: it finds
    nvcc, and loads its CUDA runtime with a stub driver library that only defines the symbols."""
    nvcc = _tool(str(CUDA / "bin" / "nvcc"), "install NVIDIA's CUDA toolkit 13.0")
    import importlib.util

    runtime = Path(importlib.util.find_spec("tvm").origin).parent / "lib" / "libtvm_runtime_cuda.so"
    names = subprocess.run(["nm", "-D", "--undefined-only", runtime], capture_output=True, text=True, check=True).stdout
    source = folder / "driver.c"
    source.write_text("".join(f"int {n}(void) {{ return 100; }}\n"  # CUDA_ERROR_NO_DEVICE
                              for n in sorted(set(re.findall(r" U (cu[A-Z]\w*)", names)))), encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1", source],
                   check=True)
    libraries = [str(folder), *(str(p) for p in (CUDA / "lib64", CUDA / "lib") if p.is_dir())]
    return os.environ | {"TVM_CUDA_COMPILE_MODE": "nvcc", "LD_LIBRARY_PATH": ":".join(libraries),
                         "PATH": f"{Path(nvcc).parent}:{os.environ['PATH']}"}


def gpu_resources(library: Path, machine: str = "sm_87") -> dict[str, dict[str, int]]:
    """{kernel: {"REG": registers per thread, "STACK", "SHARED", ...: bytes}} of a GPU's machine code in a library.
    Raises EmitError if there is none: then TVM has embedded source code, which would need a compiler on the board."""
    tool, found, code = _cuobjdump(), {}, library.with_suffix(".fatbin")
    for container in machine_code(library.read_bytes()):
        code.write_bytes(container)
        done = subprocess.run([tool, "-arch", machine, "-res-usage", code], capture_output=True, text=True, check=False)
        for kernel, usage in re.findall(r"Function (\S+?):\s*\n\s*(REG:.*)", done.stdout + done.stderr):
            found[kernel] = {k: int(v) for k, v in re.findall(r"([A-Z]+(?:\[\d+\])?):(\d+)", usage)}
    if not found:
        raise EmitError("there is no machine code for the GPU in a compiled stage", where=library.name,
                        why=f"cuobjdump finds no kernel for {machine} in it",
                        fix=f"check that nvcc runs and knows {machine}")
    return found


def machine_code(library: bytes) -> list[bytes]:
    """The containers of GPU code in a compiled stage."""
    found = []
    for at in (m.start() for m in re.finditer(re.escape(FATBIN), library)):
        header, size = struct.unpack_from("<HQ", library, at + 6)
        found.append(library[at: at + header + size])
    return found


@functools.cache
def _cuobjdump() -> str:
    places = [shutil.which("cuobjdump"), CUDA / "bin" / "cuobjdump"]
    places += list(Path(sys.prefix).glob("lib/python3*/site-packages/nvidia/*/bin/cuobjdump"))
    found = next((str(p) for p in places if p and Path(p).is_file()), None)
    if found is None:
        raise EmitError("cuobjdump is missing", where="this machine", why="it lists the kernels of a compiled stage",
                        fix="pip install nvidia-cuda-cuobjdump==13.2.51")
    return found
