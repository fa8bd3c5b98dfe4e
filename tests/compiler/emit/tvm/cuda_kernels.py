"""Stages compiled for a GPU with TVM, and the same kernels for this processor: what the double of CUDA's libraries
(runtime_c/tests/fake_cuda.c) runs in place of the machine code that it is given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlacompile.compiler.emit.onnx.onnx_stage import OnnxStage
from vlacompile.compiler.emit.tvm import stage as tvm_stage

SOURCES = Path(__file__).parents[4] / "runtime_c" / "tests"
# Each library of CUDA that TVM's is linked with, and the version that its symbols have there.
DOUBLES = {"libcuda.so.1": None, "libcudart.so.13": "libcudart.so.13"}
COMPILE = """
import json, sys
from pathlib import Path
from vlacompile.compiler.emit.tvm import worker as tvm_worker
request = json.loads(Path(sys.argv[1]).read_text())
built, _ = tvm_worker.compiled(request)
built.export_library(request["out"])
def texts(module):
    yield from ([module.inspect_source()] if module.kind == "cuda" else ())
    for other in module.imports:
        yield from texts(other)
Path(request["out"]).with_suffix(".cu").write_text("".join(texts(built.mod)))
"""


@dataclass(frozen=True)
class Double:
    """A process's environment in which there is a GPU that runs these stages. libraries: {stage: shared object}."""

    environment: dict[str, str]
    libraries: dict[str, bytes]


def double(stages: dict[str, OnnxStage], folder: Path) -> Double:
    """Compiles both; folder: an empty one."""
    kernels = folder / "kernels"
    kernels.mkdir()
    libraries = {name: _compiled(stage, folder / name, kernels) for name, stage in stages.items()}
    for name, version in DOUBLES.items():
        script = folder / f"{name}.map"
        script.write_text(f"{version or name} {{ global: *; }};\n" if version else "{ global: *; };\n")
        subprocess.run(["gcc", "-O1", "-Wall", "-shared", "-fPIC", f"-I{tvm_stage.CUDA / 'include'}",
                        f"-Wl,-soname,{name}",
                        f"-Wl,--version-script={script}", "-o", folder / name, SOURCES / "fake_cuda.c",
                        "-ldl"], check=True)
    return Double({"LD_LIBRARY_PATH": str(folder), "FAKE_CUDA_KERNELS": str(kernels),
                   "PATH": "/usr/bin:/bin"}, libraries)


def _compiled(stage: OnnxStage, folder: Path, kernels: Path) -> bytes:
    folder.mkdir()
    model, out, request = (folder / n for n in ("model.onnx", "stage.so", "request.json"))
    model.write_bytes(ir.to_proto(stage.model).SerializeToString(deterministic=True))
    request.write_text(json.dumps({"model": str(model), "machine": "sm_87", "host": "x86_64", "compiler": None,
                                   "out": str(out),
                                   "trials": 0, "seed": 0, "schedules": {"workloads": [], "records": []}}))
    subprocess.run([sys.executable, "-c", COMPILE, request], check=True, env=tvm_stage.environment(folder),
                   cwd=Path(__file__).parents[4])
    library = out.read_bytes()
    (code,) = tvm_stage.machine_code(library)
    text = folder / "kernels.cc"
    text.write_text(on_this_processor(out.with_suffix(".cu").read_text()))
    subprocess.run(["g++", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-I{SOURCES}",
                    f"-I{tvm_stage.CUDA / 'include'}", "-o", kernels / f"{fnv1a(code):016x}.so",
                    text], check=True)
    return library


def on_this_processor(text: str) -> str:
    """The kernels of a CUDA source as C++, each with an entry that takes its arguments as a launch gives them."""
    text = text[text.index('extern "C" __global__'):]
    text = re.sub(r"__shared__ (alignas\(\d+\) )?", r"\1static ", text)
    entries = []
    for kernel, given in re.findall(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\((.*?)\);", text):
        types = [re.sub(r"__restrict__|\w+$", "", p.strip()).strip() for p in given.split(",")]
        arguments = ", ".join(f"*static_cast<{t} *>(given[{i}])" for i, t in enumerate(types))
        entries.append(f'extern "C" void {kernel}_entry(void **given) {{ {kernel}({arguments}); }}\n')
    return '#include "cuda_threads.h"\n' + text + "".join(entries)


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
