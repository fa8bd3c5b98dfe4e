"""What the tests of libvlart share: the library under test, its tools, and where its samples come from."""

from __future__ import annotations

import fcntl
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlart.runtime.library import openvino_library

if TYPE_CHECKING:
    from sample_bundles import Bundle
    from vlart_ctypes import Policy

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "runtime_c"
BUILD = ROOT / "build" / "test_runtime_c"
sys.path.insert(0, str(RUNTIME / "tests"))  # the samples are shared with the C tests

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def make(*targets: str) -> None:
    """One make at a time: pytest's workers want the same files, and two makes would write them at once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", str(RUNTIME), f"TEST_PYTHON={sys.executable}", *targets], check=True)


def ort_path() -> str:
    spec = importlib.util.find_spec("onnxruntime")
    return str(next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")))


@dataclass(frozen=True)
class Engine:
    """One that runs the stages of sample bundles from their ONNX files. library: its path."""

    name: str
    library: str

    def write(self, bundle: Bundle, root: Path) -> Path:
        return (bundle.for_openvino() if self.name == "openvino" else bundle).write(root)


ENGINES = {"onnxruntime": ort_path, "openvino": openvino_library}


def run_tool(name: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([str(BUILD / name), *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          check=False)


def assert_outputs(policy: Policy, expected: dict[str, np.ndarray]) -> None:
    for name, want in expected.items():
        np.testing.assert_allclose(policy.read(name), want, **TOLERANCE, err_msg=name)
