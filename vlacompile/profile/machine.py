"""Describes the machine of a measurement: processor, cores, versions. No host names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("vlacompile", "torch", "onnx", "onnxruntime", "numpy")


def describe(*more: str) -> dict:
    """`more`: further packages whose versions matter."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "architecture": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {p: importlib.metadata.version(p) for p in (*PACKAGES, *more)},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.processor() or "unknown")
