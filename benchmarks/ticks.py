"""Cost of a tick for the control thread while the next chunk is computed, compared with a bare copy of the action.

    python -m benchmarks.ticks BUNDLE [--record] [--ticks N] [--period US]

A million ticks without load and with as many busy threads as cores, twice; runtime_c/bench/tick.c does the
timing. Writes build/bench/ (--record: profiles/host/) ticks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

from vlacompile.profile import machine
from vlart.runtime.library import onnxruntime_library

PROGRAM = Path("build/runtime_c/bench_tick")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--period", type=int, default=20, help="period of a tick in microseconds")
    arguments = parser.parse_args()
    subprocess.run(["make", "-s", "-C", "runtime_c", "BUILD=../build/runtime_c", f"../{PROGRAM}"], check=True)
    rows = []
    for spinners in (0, 2 * len(os.sched_getaffinity(0))):
        command = [str(PROGRAM), str(arguments.bundle), str(onnxruntime_library()), str(arguments.ticks),
                   str(arguments.period), str(spinners)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        r = rows[-1]
        print(f"{r['ticks']} ticks, {spinners} busy threads, {r['chunks']} chunks, {r['without_chunk']} ticks "
              f"without one")
        for name in ("pop", "pop_and_request", "memcpy"):
            print(f"  {name:16} median {r[name]['median']:7} ns   p99.9 {r[name]['p99_9']:8} ns   max "
                  f"{r[name]['max']:10} ns")
    out = Path("profiles/host" if arguments.record else "build/bench") / "ticks.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
