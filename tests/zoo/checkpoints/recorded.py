"""Names and shapes of the tensors of published checkpoints at their real size, as the authors' code makes them: written
by the scripts of this folder and of `tests/zoo/oracles` in the environment of the original, read by tests of the zoo.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.samples.shapes import packed, unpacked

FOLDER = Path(__file__).parent
Shapes = Mapping[str, Sequence[int]]


def write(name: str, checkout: Path | None, tensors: Mapping[str, Shapes], **versions: str) -> None:
    """tensors: {variant: its names and shapes}. checkout: None for an installed package."""
    commit = {} if checkout is None else {"commit": subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()}
    for shapes in tensors.values():
        assert unpacked(packed(shapes)) == {n: tuple(s) for n, s in shapes.items()}
    rows = [f'"{variant}": {{\n' + ",\n".join(f"{json.dumps(n)}: {json.dumps(s)}" for n, s in packed(shapes).items())
            + "\n}" for variant, shapes in tensors.items()]
    head = json.dumps(commit | {"versions": versions})[1:-1]
    (FOLDER / f"{name}.json").write_text("{" + head + ',\n"tensors": {' + ",\n".join(rows) + "}}\n", encoding="utf-8")


def read(name: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """{variant: {name: shape}}"""
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["tensors"]
    return {variant: unpacked(rows) for variant, rows in found.items()}
