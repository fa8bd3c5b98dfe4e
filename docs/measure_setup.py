"""Times the make targets in a fresh clone without a package cache: `python -m docs.measure_setup [--tests]`.

Writes profiles/host/setup.json, from which README.md is rendered. Takes minutes and downloads PyTorch; --tests: also
`make test`, which takes most of twenty. Without it, its row leaves the table: an older one would be of other tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from docs import render
from vlacompile.profile import machine

FIGURES = render.ROOT / "profiles" / "host" / "setup.json"
STEPS = (
    ("make setup", ".venv with PyTorch (CPU), ONNX Runtime, the compiler, the encoders' packages, pytest"),
    ("make runtime", "libvlart, vlart-run, vlart-dump (gcc)"),
    ("make demo", "a bundle of the light policy, verified and replayed"),
)
TESTS = ("make test", "environments of LeRobot and transformers; runs every test that needs no simulator")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", action="store_true", help="also make test")
    wanted = (*STEPS, TESTS) if parser.parse_args().tests else STEPS
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", render.ROOT, clone], check=True)
        environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | {"PIP_NO_CACHE_DIR": "1"}
        steps, before = [], _bytes(clone)
        for command, installs in wanted:
            print(command, flush=True)
            begin = time.perf_counter()
            subprocess.run(command.split(), cwd=clone, env=environment, check=True)
            seconds = time.perf_counter() - begin
            after = _bytes(clone)
            steps.append({"command": command, "installs": installs, "seconds": round(seconds, 1),
                          "megabytes": round((after - before) / 1e6, 1)})
            before = after
    figures = {"steps": steps, "machine": machine.describe()}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    render.main()


def _bytes(folder: Path) -> int:
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
