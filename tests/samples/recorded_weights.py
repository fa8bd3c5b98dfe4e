"""Weights that follow from their names, so that a recording of another's code needs no weights beside it; and lists of
names and shapes, layers folded into one row. Runs in old environments too: NumPy and PyTorch alone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch

# Gemma's norms
_ADDED_TO_ONE = re.compile(r"(language_model|gemma_expert\.model)\.(layers\.\d+\.\w+layer)?norm\.weight$")
_LAYER = re.compile(r"\.(\d+)\.")


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """fp32, the same everywhere: about the size of trained weights, norms near 1, nothing zero."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = rng.standard_normal(shape, np.float32)
    kind = name.rpartition(".")[2]
    if _ADDED_TO_ONE.search(name):
        drawn = 0.1 * drawn
    elif (kind == "weight" and len(shape) == 1) or kind in ("scale_factor", "gamma"):
        drawn = 1 + 0.1 * drawn
    elif len(shape) < 2:
        drawn = 0.1 * drawn
    elif "embed" not in name:
        drawn = drawn / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    else:
        drawn = 0.5 * drawn
    return torch.from_numpy(np.asarray(drawn, np.float32))


def folded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list]:
    """{name with "*" for the number of a layer: [shape, how many layers there are, or None]}"""
    found: dict[str, list] = {}
    for name, shape in shapes.items():
        number = _LAYER.search(name)
        row = found.setdefault(_LAYER.sub(".*.", name, count=1), [list(shape), None if number is None else 0])
        assert row[0] == list(shape), name
        if number is not None:
            row[1] = max(row[1], int(number[1]) + 1)
    assert unfolded(found) == {n: tuple(s) for n, s in shapes.items()}, "layers differ in their names"
    return found


def unfolded(rows: Mapping[str, list]) -> dict[str, tuple[int, ...]]:
    return {pattern.replace(".*.", f".{i}.", 1): tuple(shape) for pattern, (shape, count) in rows.items()
            for i in range(1 if count is None else count)}
