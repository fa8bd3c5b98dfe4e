"""The first hour with an Orin Nano, rehearsed and recorded: `python -m docs.board_hour`.

The commands of a section of docs/boards.md, typed on a workstation against an sshd on this machine that has doubles of
NVIDIA's libraries and a Jetson's sensor files: nothing of it is a board, and the record that it makes says so. Writes
profiles/host/board-hour.json, from which the section is rendered.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from docs import recorded_steps
from docs.figures import ROOT, figures_of
from docs.recorded_steps import NO_PROGRESS, Step
from vlacompile.profile.board_record import KINDS
from vlart.bundle.directory import read_bundle
from vlart.files.atomic import write_file

FIGURES = "profiles/host/board-hour.json"
HOST, ON_BOARD = "orin", "/home/robot/vlacompile/build/runtime_c"
STEPS = (
    Step("build", "vlacompile build pick:make --target orin-nano-8gb -o nano.vlab", NO_PROGRESS,
         ("examples/first_hour/pick.py",)),
    Step("acceptance", f"vlacompile flash nano.vlab {HOST} \\\n  --tensorrt {ON_BOARD} \\\n  --acceptance nano.json",
         NO_PROGRESS),
    Step("counts", "python -m benchmarks.board_records nano.json"),
)


def run(folder: Path) -> list[dict]:
    """The steps, in `folder`, which is empty; the last two against the double."""
    from tests.deploy import rehearsal, sshd

    tools = folder.parent / "tools"
    tools.mkdir()
    environment = recorded_steps.clean_environment(
        COLUMNS="80", PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1",
        PATH=f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    found = recorded_steps.run(STEPS[:1], folder, environment)
    home = folder.parent / "device"
    home.mkdir()
    server = sshd.start(home)
    try:
        config = server.config.read_text(encoding="utf-8").replace("Host board board-*", f"Host {HOST}")
        server.config.write_text(config, encoding="utf-8")
        board = rehearsal.lay_out(server.home / "tensorrt", read_bundle(folder / "nano.vlab"))
        programs = rehearsal.programs(folder.parent / "programs", board.system)
        _typed(tools / "vlacompile", f"--ssh-config {server.config} --board orin-nano-8gb --runtime {programs}",
               str(board.root))
        return found + recorded_steps.run(STEPS[1:], folder, environment)
    finally:
        server.end()


def _typed(path: Path, more: str, libraries: str) -> None:
    """`vlacompile` as it is typed on the page; what stands for the board is added: where its doubles lie, and which
    board it is, since this machine has no device tree."""
    real = shutil.which("vlacompile", path=str(Path(sys.executable).parent))
    path.write_text(f"""\
#!/bin/bash
words=("${{@//{ON_BOARD.replace("/", chr(92) + "/")}/{libraries}}}")
exec {real} "${{words[@]}}" {more}
""", encoding="utf-8")
    path.chmod(0o755)


def blocks() -> dict[str, Callable[[], str]]:
    """{name of a block of the page: what renders it}"""
    by = "docs/board_hour.py on doubles of NVIDIA's libraries, not on a board"
    return {f"board-hour-{step.name}": lambda step=step: recorded_steps.block(
        figures_of(FIGURES).get("steps", ()), step, by) for step in STEPS}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "work"
        folder.mkdir()
        found = run(folder)
    for row in found:
        print(f"{row['name']}: {row['seconds']} s, exit {row['status']}", *row["output"], sep="\n  ")
    if len(found) < len(STEPS) or any(r["status"] for r in found):
        sys.exit("not recorded: a command failed")
    write_file(ROOT / FIGURES, (json.dumps({"label": KINDS["double"], "steps": found}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
