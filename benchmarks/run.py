"""Latency per replan of the LIBERO-Goal pair: ours beside what a user would otherwise run.

    make bench        (python -m benchmarks.run --member light)

Every engine is a process of its own; they take turns, round after round, so that a change of the
machine's speed meets all of them. Medians are reported. Writes profiles/host/bench-MEMBER.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engines import ENGINES
from examples import machine

PROFILES = Path("profiles/host")
ROUNDS, REPLANS = 12, 5
GAP_S = 0.05  # between engines, so that none pays for another's threads


class Worker:
    """A child process with one engine."""

    def __init__(self, engine: str, member: str, threads: int, work: Path):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", engine, "--member", member, "--threads",
                   str(threads), "--work", str(work)]
        log = (work / f"{engine.split(',')[0].replace(' ', '-')}-{threads}.log").open("w")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                        env=environment)
        self.ready = self._read()

    def _read(self) -> dict | None:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def run(self, replans: int, instruction: str) -> dict:
        self.process.stdin.write(json.dumps({"replans": replans, "instruction": instruction}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(member: str, threads: int, work: Path, console: Console) -> list[dict]:
    workers = {}
    for engine in ENGINES:
        console.print(f"  prepare {engine}, {threads} thread(s)", style="dim")
        workers[engine] = Worker(engine, member, threads, work)
    times = {(e, i): {"wall_ms": [], "cpu_ms": []} for e in ENGINES for i in ("same", "new")}
    alive = {e: w for e, w in workers.items() if w.ready is not None}
    for number in range(ROUNDS + 1):
        for instruction in ("same", "new"):
            for engine, worker in alive.items():
                row = worker.run(REPLANS + (instruction == "same"), instruction)
                time.sleep(GAP_S)
                if number > 0:  # the first round warms up; the first replan of "same" still sees a new instruction
                    for key, values in row.items():
                        times[engine, instruction][key] += values[(instruction == "same"):]
    rows = []
    for engine, worker in workers.items():
        worker.close()
        row = {"engine": engine, "threads": threads, "ran": worker.ready is not None, **(worker.ready or {})}
        for instruction in ("same", "new"):
            for key, values in times[engine, instruction].items():
                if values:
                    row[f"{instruction}_{key}"] = statistics.median(values)
        rows.append(row)
    return rows


def pop_ns(member: str, work: Path) -> float:
    """Median nanoseconds of vlart_session_pop itself, called through ctypes less an empty ctypes call."""
    import ctypes

    import numpy as np

    import vlacompile as vc
    from benchmarks.worker import observations
    from vlacompile.runtime.library import libvlart

    action = np.empty(7, np.float32)
    with vc.Session(next(work.glob("*.vlab")), threads=1) as session:
        for name, array in observations(member)[0].items():
            session.write(name, array)
        library, handle, pointer = libvlart(), session._session, ctypes.c_void_p(action.ctypes.data)
        empty, pops = [], []
        for _ in range(200):
            session.invalidate()
            session.step()
            a = time.perf_counter_ns()
            for _ in range(10):
                library.vlart_session_pop(None, pointer, 7, None)
            b = time.perf_counter_ns()
            for _ in range(10):
                library.vlart_session_pop(handle, pointer, 7, None)
            c = time.perf_counter_ns()
            empty.append((b - a) / 10)
            pops.append((c - b) / 10)
    return max(0.0, statistics.median(pops) - statistics.median(empty))


def table(profile: dict) -> Table:
    t = Table(title=f"{profile['member']}: ms per replan (median)", title_justify="left")
    for name in ("engine", "thr", "same wall", "cpu", "new wall", "cpu", "MB", "build s", "max-abs"):
        t.add_column(name, justify="left" if name == "engine" else "right", no_wrap=name != "engine")
    for r in profile["engines"]:
        if not r["ran"]:
            t.add_row(r["engine"], str(r["threads"]), "did not run")
            continue
        t.add_row(r["engine"], str(r["threads"]), f"{r['same_wall_ms']:.2f}", f"{r['same_cpu_ms']:.2f}",
                  f"{r['new_wall_ms']:.2f}", f"{r['new_cpu_ms']:.2f}", f"{r['peak_rss_mb']:.0f}", f"{r['build_s']:.1f}",
                  f"{r['max_abs']:.0e}")
    return t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=["light", "heavy"], default="light")
    parser.add_argument("--threads", default="1,2", help="numbers of threads to measure")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    work = Path("build/bench") / arguments.member
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for threads in map(int, arguments.threads.split(",")):
        rows += measure(arguments.member, threads, work, console)
    library = Path("build/runtime_c/libvlart.so")
    profile = {"member": arguments.member, "machine": machine.describe("openvino", "executorch"), "rounds": ROUNDS, "replans_per_round": REPLANS,
               "engines": rows, "pop_ns": pop_ns(arguments.member, work), "libvlart_bytes": library.stat().st_size}
    PROFILES.mkdir(parents=True, exist_ok=True)
    path = PROFILES / f"bench-{arguments.member}.json"
    path.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    Console().print(table(profile))
    print(f"pop: {profile['pop_ns']:.0f} ns; libvlart.so: {profile['libvlart_bytes']} bytes; written to {path}")


if __name__ == "__main__":
    main()
