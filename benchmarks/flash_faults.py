"""Every fault of `vlacompile flash` that tests/deploy/matrix_faults.py has, each on a device with two good slots: what is
said, what runs then, and whether the same command again ends well.

    python -m benchmarks.flash_faults [--only TEXT] [--record]

The device is an sshd on the loopback, in memory. Needs openssh-server; a full disk and a read-only one need root, for a
mount. --record writes profiles/host/flash-faults.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
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
from tests.runtime_c.running import ort_path
from tests.samples import policies
from vlacompile.profile import machine

RECORD = Path(__file__).parents[1] / "profiles" / "host" / "flash-faults.json"
MOUNTED = ("disk full", "read-only")


def stage_in(folder: Path) -> Stage:
    """A device that runs the second of two bundles, and a third one for it."""
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
    return Stage(board, old, new, older.hash, base)


def table(rows: list[Row]) -> str:
    width = max(len(r.fault) for r in rows)
    return "\n".join(f"{r.kind:<15} {r.fault:<{width}}  {r.code:>3}  {r.runs:<5} {r.again:>3}  {r.rollback:<5} "
                     f"{r.seconds:5.1f} s  {'; '.join(r.wrong) or 'held'}"[:300] for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="faults with this in their kind or name")
    parser.add_argument("--record", action="store_true", help="save the rows to profiles/host")
    arguments = parser.parse_args()
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    rows: list[Row] = []
    stage = None
    try:
        stage = stage_in(folder)
        for fault in every_fault():
            if arguments.only in f"{fault.kind}: {fault.name}" and (fault.kind not in MOUNTED or os.geteuid() == 0):
                rows.append(play(fault, stage))
                print(table(rows[-1:]), flush=True)
    finally:
        if stage is not None:
            stage.board.sshd.end()
        shutil.rmtree(folder)
    wrong = sum(bool(r.wrong) for r in rows)
    print(f"{len(rows)} faults, {len(rows) - wrong} held, {wrong} did not")
    if arguments.record:
        RECORD.write_text(json.dumps({"day": dt.datetime.now(dt.UTC).date().isoformat(),
                                      "rows": [asdict(r) for r in rows], "machine": machine.describe()}, indent=1)
                          + "\n", encoding="utf-8")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
