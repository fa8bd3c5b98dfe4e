"""`vlart-run`, `vlart-dump` and `vlart-build`: the C programs, which as commands of an installed package take the place
of the Python process that found them, and what to tell them of the engines that are installed beside."""

from __future__ import annotations

import os
import sys

from vlart.errors import RuntimeFailure
from vlart.runtime.library import native_file, onnxruntime_library, openvino_library, tvm_libraries
from vlart.standard_output import print_failure

WITH_ENGINE = ("vlart-run", "vlart-build")  # --ort: the library of the installed package, where none is named


def engine_arguments() -> list[str]:
    """For `vlart-run`: the libraries of engines that are installed as packages. Raises RuntimeFailure without ONNX
    Runtime."""
    tvm = tvm_libraries()
    found = {"--ort": onnxruntime_library(), "--openvino": openvino_library(), "--tvm": tvm["tvm_library"],
             "--tvm-ffi": tvm["tvm_ffi_library"], "--tvm-cuda": tvm["tvm_cuda_library"]}
    return [word for option, path in found.items() if path is not None for word in (option, str(path))]


def arguments(name: str, argv: list[str]) -> list[str]:
    """The words that the program gets, its name first."""
    if name not in WITH_ENGINE or not argv or {"--ort", "--help", "-h"} & set(argv):
        return [name, *argv]
    try:
        return [name, *argv, "--ort", str(onnxruntime_library())]
    except RuntimeFailure:
        return [name, *argv]  # the program asks the loader, and tells what is missing


def _become(name: str) -> int:
    try:
        os.execv(native_file(name), arguments(name, sys.argv[1:]))
    except RuntimeFailure as failure:
        print_failure(failure)
        return failure.exit_code


def vlart_run() -> int:
    return _become("vlart-run")


def vlart_dump() -> int:
    return _become("vlart-dump")


def vlart_build() -> int:
    return _become("vlart-build")
