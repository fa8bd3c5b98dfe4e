"""The file of schedules found for TVM's kernels: an input of a build, so that equal inputs give equal bytes.

gzip of {"tvm": version, "machine": name, "workloads": lines, "records": lines}. Must not import TVM.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path

from vlacompile.files.toml import shipped
from vlart.errors import ConfigError
from vlart.files.atomic import write_whole


@dataclass
class Schedules:
    """path: None if no file is used. lines: {"workloads": [...], "records": [...]}."""

    path: Path | None
    machine: str
    tvm: str
    lines: dict[str, list[str]] = field(default_factory=lambda: {"workloads": [], "records": []}, repr=False)

    def keep(self, report: dict) -> None:
        """report: of a compilation (tuning.scheduled); written to the file if it has new schedules."""
        lines = {key: report[key] for key in self.lines}
        if self.path is not None and lines != self.lines and report["tried"]:
            self.lines = lines
            text = json.dumps({"tvm": self.tvm, "machine": self.machine} | lines)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, gzip.compress(text.encode(), mtime=0))


def schedules_of(file: str, recipe: str | None, machine: str, tvm: str) -> Schedules:
    """file: as in the recipe, relative to the recipe's folder; "": none. recipe: a name or a .toml path. Raises
    ConfigError for an invalid file, or one for another machine or version of TVM."""
    if not file:
        return Schedules(None, machine, tvm)
    folder = Path(recipe).parent if recipe and recipe.endswith(".toml") else (
        shipped("recipes")[recipe or "default"].parent)
    path = folder / file
    if not path.exists():
        return Schedules(path, machine, tvm)
    try:
        document = json.loads(gzip.decompress(path.read_bytes()))
        lines = {key: [str(line) for line in document[key]] for key in ("workloads", "records")}
        found = document["machine"], document["tvm"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ConfigError("the file of schedules cannot be read", where=str(path),
                          why=f"{type(error).__name__}: {error}",
                          fix="delete it, and build with stages.tvm_trials to search again") from error
    if found != (machine, tvm):
        raise ConfigError("the schedules are for another machine or version of TVM", where=str(path),
                          why=f"they are for {found[0]} and TVM {found[1]}, this build is for {machine} and TVM {tvm}",
                          fix="name another file in stages.tvm_schedules")
    return Schedules(path, machine, tvm, lines)
