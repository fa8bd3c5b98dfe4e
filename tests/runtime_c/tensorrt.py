"""Bundles for TensorRT, and a machine that is a double of a Jetson: `Board` (runtime_c/tests/fake_tensorrt.c)."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from sample_bundles import Bundle
from vlart_ctypes import Policy

from tests.runtime_c.running import BUILD, ort_path, run_tool
from vlart import vocabulary
from vlart.bundle.engine_lock import LOCK_FILE as LOCK
from vlart.bundle.engine_lock import read_lock


def for_tensorrt(bundle: Bundle, stages: set[str] | None = None, **build) -> Bundle:
    """Gives stages (None: all) to TensorRT. Its parser reads the weights itself, so their places must be right.
    build: fields of the recipe."""
    plan = bundle.plan.records
    text_of = {"name": "orin-nano-8gb", "jetpack": "6.2", "l4t": "36.4.3", "tensorrt": "10.3",
               "timing_cache": "timing.cache"}
    bundle.plan.add("board", compute_capability=87, **{k: bundle.plan.string(v) for k, v in text_of.items()})
    recipe = {"flags": 3, "level": 3, "aux_streams": 0, "int8_gemms": 0, "int4_dequants": 0, "attentions": 0,
              "workspace_bytes": 1 << 28, "weight_bytes": 0, "engine_bytes_min": 1300, "engine_bytes_max": 4000,
              "activation_bytes": 4096, **build}
    for i, row in enumerate(plan["stages"]):
        name = text(bundle, row["name"])
        if stages is not None and name not in stages:
            continue
        row["backend"] = vocabulary.BACKENDS["tensorrt"]
        bundle.plan.add("builds", stage=i, **recipe)
        path = f"stages/{name}.onnx"
        model = onnx.ModelProto.FromString(bundle.files[path])
        ports = {text(bundle, r["port"]): r["weight"] for r in
                 plan.get("initializers", [])[row["initializer_begin"]:][: row["initializer_count"]]}
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "offset":
                    entry.value = str(plan["weights"][ports[tensor.name]]["offset"])
        bundle.files[path] = model.SerializeToString()
    return bundle


def text(bundle: Bundle, offset: int) -> str:
    data = bundle.plan.strings
    return data[offset: data.index(b"\0", offset)].decode()


class Board:
    """A directory with the double's library, what it says of itself, and the files of a Jetson."""

    def __init__(self, root: Path, build: Path = BUILD, **conf):
        """build: where the runtime and the double were built."""
        self.root, self.tools, self.library, self.trace = root, build, root / "libfake_tensorrt.so", root / "trace"
        self.system, self.builder = root / "system", self.library
        shutil.copy(build / "libfake_tensorrt.so", self.library)
        self.conf = {"tensorrt": "10.3.0.30", "cuda": "12.6", "gpu": "Orin", "compute_capability": 87,
                     "scratch_bytes": 4096, "ort": ort_path(), "trace": self.trace, "system_root": self.system, **conf}
        self.file("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
        self.module("p3768-0000+p3767-0005-super", "p3767-0005", "tegra234")
        self.release("36 (release), REVISION: 4.3")
        self.set()

    def file(self, path: str, content: str) -> None:
        (self.system / path).parent.mkdir(parents=True, exist_ok=True)
        (self.system / path).write_text(content)

    def release(self, words: str) -> None:
        self.file("etc/nv_tegra_release", f"# R{words}, GCID: 1, BOARD: generic, EABI: aarch64\n")

    def module(self, *names: str) -> None:
        self.file("proc/device-tree/compatible", "".join(f"nvidia,{name}\0" for name in names))

    def set(self, **conf) -> Board:
        self.conf.update(conf)
        rows = [f"{k} {v}" for k, v in self.conf.items() if v != ""]
        (self.root / "fake_tensorrt.conf").write_text("\n".join(rows) + "\n")
        self.trace.unlink(missing_ok=True)
        return self

    def build(self, bundle: Path, *arguments):
        return run_tool(self.tools / "vlart-build", bundle, "--tensorrt", self.library, "--tensorrt-builder",
                        self.builder, "--ort", ort_path(), "--repeat", 3, *arguments)

    @property
    def options(self) -> dict:
        return {"tensorrt_library": str(self.library).encode()}

    def calls(self, *words: str) -> list[str]:
        """The lines of the trace that begin with one of these words."""
        return [line for line in self.trace.read_text().splitlines() if line.split()[0] in words]


def lock(bundle: Path) -> dict:
    return read_lock(bundle / LOCK)


def built(board: Board, bundle: Bundle, root: Path, stages=None) -> Path:
    path = for_tensorrt(bundle, stages).write(root)
    done = board.build(path)
    assert done.returncode == 0, done.stderr
    return path


def refused(done, *words: str) -> None:
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["what", "where", "why", "fix"], done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def start(lib, board, path, **options) -> None:
    with Policy(lib, path) as policy:
        policy.start(None, **options, **board.options)
