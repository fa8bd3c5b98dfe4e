"""Writes the sample bundles for the C tests: `write_samples.py DIR`, with the repository root on the path."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

from sample_actions import samples
from sample_backbones import bucketed, paired
from sample_branches import Branches
from sample_bundles import Flow, Reactive, Recall
from sample_carried import Adding
from sample_lanes import laned
from sample_lock import lock_bytes, sample_lock
from sample_loops import Ending
from sample_recording import recording_bytes
from sample_routing import sample_bytes
from sample_tokenizers import TABLES, spoken


def write_samples(root: Path) -> None:
    for name, policy in (("reactive", Reactive(low=(-1,) * 3, high=(1,) * 3)), ("flow", Flow(3))):
        for seed in range(2):
            inputs = policy.inputs(seed)
            policy.bundle.frame(f"seed {seed}", inputs, policy.reference(inputs))
            golden = policy.bundle.golden
            golden.add("references", frame=seed, tensor=len(golden.records["tensors"]) - 1)
            last = golden.records["tensors"][-1]
            policy.bundle.columns([1e-5] * last["dims"][last["rank"] - 1])
        policy.bundle.write(root / name)
    for name, relay in samples().items():
        relay.bundle.write(root / name)
    spoken().write(root / "spoken")
    laned().write(root / "laned")
    Branches().bundle.write(root / "branches")
    paired().write(root / "paired")
    bucketed().write(root / "bucketed")
    for name, (table, _) in TABLES.items():
        (root / f"{name}.bin").write_bytes(table().to_bytes())
    for name, must_end in (("ending", False), ("ends", True)):
        ending = Ending(4, must_end)
        for turns in (1, 2, 3, 4):
            ending.bundle.frame(f"{turns} iterations", ending.inputs(turns), ending.reference(ending.inputs(turns)))
        ending.bundle.write(root / name)
    recall = Recall()
    seen = [recall.inputs(seed) for seed in range(4)]
    for i, inputs in enumerate(seen):
        recall.bundle.frame(f"observation {i}", inputs, recall.reference(seen[: i + 1]))
    recall.bundle.write(root / "recall")
    adding = Adding()
    given = [adding.inputs(seed) for seed in range(5)]
    for i, inputs in enumerate(given):
        adding.bundle.frame(f"step {i}", inputs, adding.reference(given[3 if i >= 3 else 0: i + 1]))
        adding.bundle.golden.records["frames"][-1]["begins"] = int(i in (0, 3))
    adding.bundle.write(root / "adding")
    (root / "routing").mkdir(exist_ok=True)
    (root / "routing" / "table.bin").write_bytes(sample_bytes())
    (root / "routing" / "state.bin").write_bytes(state_bytes(sample_bytes()))
    Flow(3).on_board().bundle.write(root / "board")
    (root / "recording.vlog").write_bytes(recording_bytes())
    (root / "lock.bin").write_bytes(lock_bytes(sample_lock()))


def state_bytes(table: bytes, generation: int = 3) -> bytes:
    """The state of a router of sample_routing's table: six routes, two backbones."""
    counts = [float(k % 4) for k in range(6 * 2 * 2)]
    head = struct.pack("<8sIIQII", b"VLABRSTA", 1, zlib.crc32(table[64:]), generation, 12, 0)
    data = head + struct.pack(f"<{len(counts)}d", *counts)
    return data + struct.pack("<Q", zlib.crc32(data))


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
