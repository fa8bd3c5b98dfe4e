"""Records of built engines, as vlart-build writes them: a sample, and the file of what is read of one."""

from __future__ import annotations

import struct

from vlart import vocabulary
from vlart.bundle.engine_lock import TEXTS
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionWriter

BOARD = {"memory_bytes": 8000000000, "plan_crc32": 0x0011AAFF, "golden": "passed", "whole_tick": "passed",
         "compute_capability": 87, "multiprocessors": 8, "model": 'a "board"', "jetpack": "6.2", "l4t": "36.4.3",
         "tensorrt": "10.3.0", "cuda": "12.6", "gpu": "Orin", "power_mode": layout.NONE, "gpu_mhz": 612,
         "gpu_max_mhz": 1020, "emc_mhz": layout.NONE, "cpu_mhz": 1344, "cpu_max_mhz": layout.NONE, "reserved": 0}
ENGINE = {"bytes": 20, "scratch_bytes": 4096, "build_peak_bytes": 7, "build_s": 1.5, "runs": 0, "median_ms": 0.0,
          "p95_ms": 0.0, "stage": "prefix", "file": "engines/prefix.plan", "crc32": 0x12345678, "stage_crc32": 1,
          "weights_crc32": 2, "recipe_crc32": 3, "sha256": bytes(range(32))}


def sample_lock() -> dict:
    """Two engines; the second was measured."""
    measured = {"stage": "denoise", "file": "engines/denoise.plan", "runs": 6, "median_ms": 1.25, "p95_ms": 2.5}
    return BOARD | {"engines": [dict(ENGINE), ENGINE | measured]}


def lock_bytes(lock: dict) -> bytes:
    """The file of what `read_lock` gives."""
    out = SectionWriter(layout.LOCK_MAGIC, layout.LOCK_SECTIONS)

    def add(section: str, row: dict) -> None:
        words = {name: out.string(text) for name, text in row.items() if name in TEXTS and isinstance(text, str)}
        words |= {name: vocabulary.PROOFS[row[name]] for name in ("golden", "whole_tick")
                  if row.get(name) in vocabulary.PROOFS}
        if "sha256" in row:
            words["sha256"] = struct.unpack("<8I", row["sha256"])
        out.add(section, **row | words)

    add("lock", {name: value for name, value in lock.items() if name != "engines"})
    for engine in lock["engines"]:
        add("engines", engine)
    return out.to_bytes()
