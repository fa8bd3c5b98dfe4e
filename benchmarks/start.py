"""Start of a bundle: processor time and memory, without a cache of packed weights, with an empty one, and from it.

    python -m benchmarks.start [BUNDLE] [--rounds N] [--record]

BUNDLE: by default the heavy policy of the demo (`make demo MEMBER=heavy`). Every start is in a process of its own, in
turns; medians. Processor seconds, since other work on the machine changes them little. Memory is above what the
process had before; of mapped files only the pages that are there count. Writes build/bench/start.json; --record:
profiles/host/start.json instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlacompile.profile import machine
from vlart import Session

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "build" / "demo" / "heavy.vlab"
KINDS = ("no cache", "cache, first start", "cache, later starts")


def started(bundle: Path, cache: Path | None) -> dict:
    """One start in this process."""
    before, resident = _cpu_s(), _kib("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    began = time.perf_counter()
    with Session(bundle, threads=1, weight_cache=cache) as session:
        cpu, wall, after = _cpu_s() - before, time.perf_counter() - began, _kib("VmRSS:")
        told = session.weight_cache
        return {"cpu_s": cpu, "wall_s": wall, "resident_mb": (after - resident) / 1000,
                "peak_mb": (_kib("VmHWM:") - resident) / 1000, "anonymous_mb": _kib("RssAnon:") / 1000,
                "mapped": told.mapped, "written": told.written, "refused": told.refused}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _kib(key: str) -> int:
    return next(int(row.split()[1]) for row in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
                if row.startswith(key))


def measured(bundle: Path, rounds: int) -> dict[str, dict]:
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        cache = Path(folder) / "cache"
        for _ in range(rounds):
            shutil.rmtree(cache, ignore_errors=True)
            for kind in KINDS:
                command = [sys.executable, "-W", "ignore", "-m", "benchmarks.start", str(bundle), "--one",
                           "" if kind == "no cache" else str(cache)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT,
                                      env=os.environ | {"OMP_NUM_THREADS": "1"})
                found[kind].append(json.loads(done.stdout))
        stored = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    assert all(r["refused"] == 0 for rows in found.values() for r in rows)
    assert all(r["mapped"] > 0 for r in found[KINDS[2]]) and all(r["written"] > 0 for r in found[KINDS[1]])
    return {kind: {key: statistics.median(r[key] for r in rows) for key in rows[0]} | {"stored_mb": stored / 1e6 * (
        kind != "no cache")} for kind, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(started(given.bundle, Path(given.one) if given.one else None)))
        return
    starts = measured(given.bundle.resolve(), given.rounds)
    for kind, row in starts.items():
        print(f"{kind:20s} {row['cpu_s']:6.2f} cpu s {row['peak_mb']:7.0f} MB peak "
              f"{row['resident_mb']:7.0f} MB resident {row['anonymous_mb']:7.0f} MB anonymous "
              f"{row['stored_mb']:7.0f} MB on the disk")
    out = ROOT / ("profiles/host" if given.record else "build/bench") / "start.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = sum(p.stat().st_size for p in (given.bundle / "stages").glob("*.bin"))
    out.write_text(json.dumps({"bundle": given.bundle.stem, "weights_mb": weights / 1e6, "rounds": given.rounds,
                               "starts": starts, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
