"""Runs the originals one by one, each in a process of its own, in the environment that it needs.

    make gauntlet FOLDER=path                        (python -m benchmarks.gauntlet FOLDER)
    python -m benchmarks.gauntlet FOLDER --only act diffusion_unet
    python -m benchmarks.gauntlet --clone            how to get the checkouts

Rows are written to build/bench/gauntlet; with --record to profiles/gauntlet, and `make docs` renders them. Ends with
exit code 1 if a compiled policy differs from its original. A refusal is a row of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gauntlet import environments
from benchmarks.gauntlet.original import GLUE, Glue, read_glue, state_of
from vlacompile.profile import machine

PROFILE = Path("profiles/gauntlet")
WORK = Path("build/bench/gauntlet")


def run(glue: Glue, folder: Path, work: Path, limit_s: float) -> dict:
    """The row of one original; "failed" if its process ends without one or takes longer than the limit."""
    checkout = (folder / glue.original.folder).resolve()
    states = {name: state_of(folder / name, commit) for name, commit in glue.original.checkouts.items()}
    row = {"name": glue.original.name, "repository": glue.original.repository, "commit": glue.original.commit,
           "glue_lines": glue.lines, "note": glue.original.note}
    if absent := [name for name in states if not (folder / name).is_dir()]:
        return row | {"result": "absent", "message": f"no folder {', '.join(absent)}:\n{glue.original.clone()}"}
    environment = environments.named(glue.original.environment)
    python = str(environment.python) if environment else sys.executable
    written = work / f"{glue.key}.json"
    written.unlink(missing_ok=True)
    command = [python, "-W", "ignore", "-m", "benchmarks.gauntlet.measure", str(glue.file), str(checkout), str(work)]
    try:
        done = subprocess.run(command, timeout=limit_s, check=False, env=os.environ | {
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)
            if environment is None else str(Path.cwd())})
    except subprocess.TimeoutExpired:
        return row | {"result": "failed", "message": f"not finished after {limit_s:.0f} s"}
    if not written.is_file():
        return row | {"result": "failed", "message": f"its process ended with {done.returncode} and wrote nothing"}
    return json.loads(written.read_text(encoding="utf-8")) | {"checkouts": states}


def said(row: dict) -> str:
    """One line for the terminal."""
    if row["result"] in ("equal", "differs"):
        return (f"{row['name']}: {row['result']}, {row['share']:.1e} of the output's scale; built in "
                f"{row['build_s']:.1f} s, {len(row['stages'])} stages, {row['glue_lines']} lines of glue")
    return f"{row['name']}: {row['result']}\n{row['message']}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="holds the checkouts, each under its repository's name")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="files of the glue, without .py")
    parser.add_argument("--glue", type=Path, default=GLUE, help="folder of glue files (default: those shipped)")
    parser.add_argument("--seconds", type=float, default=900, help="limit of each original")
    parser.add_argument("--record", action="store_true", help=f"write the rows to {PROFILE}")
    parser.add_argument("--clone", action="store_true", help="print the commands that bring the checkouts")
    arguments = parser.parse_args(argv)
    every = [read_glue(f) for f in sorted(arguments.glue.glob("[!_]*.py"))]
    if arguments.clone:
        print(*dict.fromkeys(line for g in every for line in g.original.clone().splitlines()), sep="\n")
        return 0
    if arguments.folder is None:
        parser.error("give the folder of checkouts, or --clone")
    if unknown := set(arguments.only or ()) - {g.key for g in every}:
        parser.error(f"no glue for {', '.join(sorted(unknown))}; there is {', '.join(g.key for g in every)}")
    WORK.mkdir(parents=True, exist_ok=True)
    results = set()
    for glue in every:
        if arguments.only and glue.key not in arguments.only:
            continue
        row = run(glue, arguments.folder, WORK.resolve(), arguments.seconds)
        print(said(row), flush=True)
        results.add(row["result"])
        if arguments.record:
            PROFILE.mkdir(parents=True, exist_ok=True)
            kept = {k: v for k, v in row.items() if k != "trace"} | {"machine": machine.describe()}
            (PROFILE / f"{glue.key}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return int("differs" in results)


if __name__ == "__main__":
    sys.exit(main())
