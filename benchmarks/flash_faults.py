"""Every fault of `vlacompile flash` that tests/deploy/matrix_faults.py has, each on a device with two good slots:
what is said, what runs then, and whether the same command again ends well.

    python -m benchmarks.flash_faults [--only TEXT ...] [--record]

The device is an sshd on the loopback, in memory. Needs openssh-server; a full disk and a read-only one need root, for a
mount. --record writes profiles/host/flash-faults.json; with --only it replaces the rows that are played.
"""

from __future__ import annotations

import argparse
import datetime as dt
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import vlacompile as vc
from tests.deploy import board as boards
from tests.deploy import sshd
from tests.deploy.matrix import Row, Stage, play
from tests.deploy.matrix_faults import every_fault
from tests.deploy.matrix_signed import signed_faults, signed_stage
from tests.runtime_c.running import ort_path
from tests.samples import policies
from vlacompile.profile import machine

RECORD = Path(__file__).parents[1] / "profiles" / "host" / "flash-faults.json"
MOUNTED = ("disk full", "read-only")


def stage_in(folder: Path) -> tuple[Stage, vc.Bundle]:
    """A device that runs the second of two bundles, and a third one for it; and what all are made of."""
    recipe = folder / "recipe.toml"
    recipe.write_text(policies.EVERY_STAGE, encoding="utf-8")
    built = vc.build(policies.late_fusion(), recipe=str(recipe), out=folder / "late_fusion.vlab")
    older, old, new = (boards.variant(built, folder / f"{n}.vlab", n) for n in (1, 2, 3))
    device = folder / "device"
    device.mkdir()
    board = boards.Board(sshd.start(device), ort_path())
    for bundle in (older, old):
        if board.flash(bundle):
            raise SystemExit("the device cannot be flashed")
    base = folder / "base"
    shutil.copytree(board.root, base, symlinks=True)
    return Stage(board, old, new, older.hash, base), built


def table(rows: list[Row]) -> str:
    width = max(len(r.fault) for r in rows)
    return "\n".join(f"{r.kind:<15} {r.fault:<{width}}  {r.code:>3}  {r.runs:<5} {r.again:>3}  {r.rollback:<5} "
                     f"{r.seconds:5.1f} s  {'; '.join(r.wrong) or 'held'}"[:300] for r in rows)


def record(rows: list[Row]) -> None:
    """Those that were not played stay as they were, if there still are such faults."""
    with RECORD.open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several may run, each with faults of its own
        before = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.stat().st_size else []
        found = {(r["kind"], r["fault"]): r for r in [*before, *map(asdict, rows)]}
        ordered = [found[f.kind, f.name] for f in [*every_fault(), *signed_faults()] if (f.kind, f.name) in found]
        RECORD.write_text(json.dumps({"day": dt.datetime.now(dt.UTC).date().isoformat(), "rows": ordered,
                                      "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT",
                        help="faults with one of these in their kind or name")
    parser.add_argument("--record", action="store_true", help="save the rows to profiles/host")
    arguments = parser.parse_args()
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    rows: list[Row] = []
    stage = None
    try:
        stage, built = stage_in(folder)
        for faults, on in ((every_fault(), lambda: stage),
                           (signed_faults(), lambda: signed_stage(stage.board, built, folder))):
            chosen = [f for f in faults if any(text in f"{f.kind}: {f.name}" for text in arguments.only)
                      and (f.kind not in MOUNTED or os.geteuid() == 0)]
            playing = on() if chosen else None
            for fault in chosen:
                rows.append(play(fault, playing))
                print(table(rows[-1:]), flush=True)
                if arguments.record:
                    record(rows)
    finally:
        if stage is not None:
            stage.board.sshd.end()
        shutil.rmtree(folder)
    wrong = sum(bool(r.wrong) for r in rows)
    print(f"{len(rows)} faults, {len(rows) - wrong} held, {wrong} did not")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
