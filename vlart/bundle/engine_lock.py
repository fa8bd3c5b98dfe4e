"""The record of engines that vlart-build built on a machine: engines/lock.bin of a bundle, read only."""

from __future__ import annotations

import struct
from pathlib import Path

from vlart import vocabulary
from vlart.bundle.format import layout
from vlart.bundle.format.sections import SectionReader

LOCK_FILE = "engines/lock.bin"
TEXTS = {"model", "jetpack", "l4t", "tensorrt", "cuda", "gpu", "stage", "file"}
PROOF_NAMES = {number: name for name, number in vocabulary.PROOFS.items()}


def read_lock(path: Path) -> dict:
    """The fields of the record (bytes, MHz, s, ms) with texts, names of proofs and digests; "engines": one such row
    each. A number that the machine does not say is layout.NONE. Raises BundleError if the file is damaged."""
    file = SectionReader(path, layout.LOCK_MAGIC)

    def plain(row: dict) -> dict:
        row |= {name: file.string(row[name]) for name in TEXTS & set(row)}
        row |= {name: PROOF_NAMES[row[name]] for name in ("golden", "whole_tick") if name in row}
        return row | ({"sha256": struct.pack("<8I", *row["sha256"])} if "sha256" in row else {})

    return plain(file.rows("lock")[0]) | {"engines": [plain(row) for row in file.rows("engines")]}
