"""Doubles of NVIDIA's libraries from NVIDIA's public headers, which are no part of this repository.

`make nvidia-headers` puts them under build/nvidia/, a directory per version (tests that need one are skipped without
it):
  tensorrt-10.3/    include/ of github.com/NVIDIA/TensorRT at release/10.3, and NvOnnxParser.h of
  tensorrt-10.16/   github.com/onnx/onnx-tensorrt (10.1-GA has the same; from 10.16 on it is in include/ itself);
                    beside them samples/common/sampleOptions.cpp, for test_trtexec.py
  cuda-12.6/        include/ of the wheels nvidia-cuda-runtime-cu12 and nvidia-cuda-nvcc-cu12 (crt/)
  cuda-13.2/        include/ of the wheels nvidia-cuda-runtime and nvidia-cuda-crt
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.runtime_c.running import ROOT, RUNTIME, make

HEADERS = ROOT / "build" / "nvidia"
INTERFACES = {"NvInferImpl.h": ("VHostMemory", "VExecutionContext", "VEngineInspector", "VCudaEngine", "VRuntime",
                                "VTimingCache", "VBuilderConfig", "VNetworkDefinition", "VBuilder"),
              "NvOnnxParser.h": ("IParserError", "IParser")}
LIBRARIES = ("nvinfer", "nvonnxparser", "cudart")


@dataclass(frozen=True)
class Software:
    """tensorrt, cuda: versions, as JetPack has them together."""

    tensorrt: str
    cuda: str

    @property
    def headers(self) -> Path:
        return HEADERS / f"tensorrt-{self.tensorrt}"

    @property
    def toolkit(self) -> Path:
        return HEADERS / f"cuda-{self.cuda}"

    def missing(self) -> list[str]:
        """What is not under build/nvidia."""
        wanted = [self.headers / "NvInfer.h", self.headers / "NvOnnxParser.h",
                  self.toolkit / "include/cuda_runtime_api.h", self.toolkit / "include/crt/host_defines.h"]
        return [str(p.relative_to(ROOT)) for p in wanted if not p.exists()]


def class_body(text: str, name: str) -> str:
    """Between the braces of a class's definition."""
    begin = re.search(rf"^class {name}\b[^;{{]*\{{", text, re.MULTILINE).end()
    return text[begin: text.index("\n};", begin)]


def stub(namespace: str, name: str, body: str) -> str:
    """A class that implements every pure function of an interface: it ends the process."""
    functions = []
    body = re.sub(r"//[^\n]*", "", body)
    for declaration in re.findall(r"virtual\s+([^;{}]*?)\s*=\s*0\s*;", body):
        declaration = re.sub(r"\s+", " ", declaration)
        declaration = re.sub(r"^(TRT_DEPRECATED|TRT_NODISCARD) ", "", declaration)
        called = re.search(r"(\w+)\s*\(", declaration)[1]
        functions.append(f'  {declaration} override {{ stop("{name}::{called}"); }}')
    base = f"apiv::{name}" if namespace == "nvinfer1" else name
    return f"namespace {namespace} {{\nstruct Stub_{name} : {base} {{\n" + "\n".join(functions) + "\n};\n}\n"


def stubs(headers: Path) -> str:
    parts = ["#include <cstdio>\n#include <cstdlib>\n[[noreturn]] static void stop(const char *name) {\n"
             '  std::fprintf(stderr, "fake_nvidia: %s is not expected\\n", name);\n  std::abort();\n}\n'
             '#pragma GCC diagnostic ignored "-Wunused-parameter"\n'
             '#pragma GCC diagnostic ignored "-Woverloaded-virtual"\n'
             '#pragma GCC diagnostic ignored "-Wdeprecated-declarations"\n']
    for file, names in INTERFACES.items():
        text = (headers / file).read_text()
        namespace = "nvonnxparser" if file == "NvOnnxParser.h" else "nvinfer1"
        parts += [stub(namespace, name, class_body(text, name)) for name in names]
    return "\n".join(parts)


def compile_double(software: Software, out: Path) -> Path:
    """libnvinfer.so, libnvonnxparser.so and libcudart.so in `out`, which are one and the same file."""
    (out / "stubs.h").write_text(stubs(software.headers))
    include = [f"-I{RUNTIME / d}" for d in ("include", "backends")]
    flags = ["-fPIC", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-fvisibility=hidden"]
    renamed = ["-Dvlart_tensorrt_runtime=fake_runtime", "-Dvlart_tensorrt_builder=fake_builder"]
    objects = [str(out / f"{name}.o") for name in ("fake_tensorrt", "fake_engines", "fake_stream", "fake_builder")]
    for path in objects:
        subprocess.run(["gcc", "-std=c11", *flags, *include, *renamed, "-c", "-o", path,
                        str(RUNTIME / "tests" / Path(path).with_suffix(".c").name)], check=True)
    subprocess.run(["g++", "-std=c++17", *flags, "-fvisibility=default", *include, f"-I{out}", "-isystem",
                    str(software.headers), "-isystem", str(software.toolkit / "include"), "-shared",
                    *renamed, str(RUNTIME / "tests/fake_nvidia.cc"), *objects, "-o", str(out / "libfake_nvidia.so"),
                    "-ldl"], check=True)
    for name in LIBRARIES:
        (out / f"lib{name}.so").symlink_to("libfake_nvidia.so")
    return out


def compile_backend(software: Software, double: Path, build: Path, *variables: str) -> tuple[Path, Path]:
    """`make tensorrt` with the headers and the doubles: the two libraries, which find the doubles beside them."""
    make(f"BUILD={build}", f"TENSORRT={software.headers}", f"CUDA={software.toolkit}",
         f"NVIDIA_LIBS=-L{double} -Wl,-rpath,'$$ORIGIN'", *variables, "tensorrt")
    return build / "libvlart_tensorrt.so", build / "libvlart_tensorrt_builder.so"
