"""Runs the worker: one process per stage, judged by the record that it writes, not by its exit status."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vlacompile.check.rtx_log import Compiled, read_log
from vlart.errors import ConfigError

PACKAGE = "tensorrt-rtx-cu12==1.7.1.116"
CAPABILITY = "SM86"  # the closest to sm_87 that the compiler supports
SECONDS = 900


@dataclass(frozen=True)
class Refusal:
    """The compiler's refusal of a stage. node: of the ONNX graph; "" if it names none."""

    kind: str  # "rejected", "not built", "crashed", "timeout"
    node: str
    op: str
    why: str


@dataclass(frozen=True)
class Attempt:
    """compiler: package and version; "" if it died before reporting them. Exactly one of refusal and compiled is
    set."""

    compiler: str
    engine_bytes: int
    refusal: Refusal | None
    compiled: Compiled | None


def require_compiler(python: str = sys.executable) -> None:
    """Raises ConfigError unless that interpreter has the package."""
    if python == sys.executable:
        there = importlib.util.find_spec("tensorrt_rtx") is not None
    else:
        there = subprocess.run([python, "-c", "import tensorrt_rtx"], capture_output=True, check=False).returncode == 0
    if not there:
        raise ConfigError("NVIDIA's compiler is not installed", where=python, why="there is no module tensorrt_rtx",
                          fix=f"pip install 'vlacompile[rtx]' ({PACKAGE}, x86-64; it needs no GPU)")


def compile_stage(model: Path, *, capability: str = CAPABILITY, seconds: float = SECONDS,
                  python: str = sys.executable) -> Attempt:
    """model: an ONNX file, with its external data in place."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        worker = Path(__file__).with_name("worker.py")
        try:
            done = subprocess.run([python, str(worker), str(model), str(result), capability], capture_output=True,
                                  timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return _refused("timeout", f"it took longer than {seconds:g} s")
        if not result.is_file():
            return _refused("crashed", _ending(done))
        return _attempt(json.loads(result.read_text(encoding="utf-8")))


def _attempt(found: dict) -> Attempt:
    if found["engine_bytes"] is not None:
        return Attempt(found["compiler"], found["engine_bytes"], None, read_log(found["log"]))
    if found["errors"]:
        e = found["errors"][0]
        return _refused("rejected", _words(e["why"], e["op"]), e["node"], e["op"], found["compiler"])
    said = [s for s in found["said"] if "cudaError" not in s and "CUDA driver" not in s]
    errors = [s for s in said if not s.startswith("WARNING")]
    return _refused("not built", (errors or said or ["it gave no reason"])[0], compiler=found["compiler"])


def _words(why: str, op: str) -> str:
    """For an unknown op the parser says "false", or that it found no plugin of that name. What it says first is the
    fault; errors of the absent GPU and of the nodes behind follow."""
    why = why.partition(" [checkMacros")[0]
    return f"TensorRT has no {op}" if op and (why == "false" or "Plugin not found" in why) else why


def _refused(kind: str, why: str, node: str = "", op: str = "", compiler: str = "") -> Attempt:
    return Attempt(compiler, 0, Refusal(kind, node, op, " ".join(why.split())), None)


def _ending(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f"the compiler's process was killed by {signal.Signals(-done.returncode).name}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    return f"the compiler's process ended with status {done.returncode}: {last[0]}"
