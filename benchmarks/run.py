"""Latency per replan of the LIBERO-Goal pair: ours compared with the alternatives.

    make bench        (python -m benchmarks.run --member light)

Every engine is prepared in one process and run in another; they alternate round by round, so that a change of the
machine's speed affects all of them. Medians are reported. Writes build/bench/bench-MEMBER.json; with --record
profiles/host/bench-MEMBER.json, and `make docs` then renders it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engines import ENGINES
from examples.demo import VLART_RUN
from vlacompile.profile import machine
from vlart.runtime.library import onnxruntime_library

PROFILES = Path("profiles/host")
ROUNDS, REPLANS = 12, 5
POP_PASSES = 200
GAP_S = 0.05  # between engines, so that none is slowed down by another's threads


def folder(engine: str, work: Path) -> Path:
    return work / "".join(c if c.isalnum() else "-" for c in engine.lower())


def worker_command(verb: str, engine: str | None, member: str, work: Path, *more: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", verb, *([engine] if engine else []),
            "--member", member, "--work", str(work), *more]


def prepare(engine: str, member: str, work: Path) -> dict | None:
    """Have the tool write its artefact; None, with the reason in a log, if it fails."""
    to = folder(engine, work)
    to.mkdir()
    with (to / "prepare.log").open("w") as log:
        done = subprocess.run(worker_command("prepare", engine, member, to), stdout=subprocess.PIPE, stderr=log,
                              text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


class Worker:
    """A child process with one engine, loaded."""

    def __init__(self, engine: str, member: str, threads: int, work: Path):
        to = folder(engine, work)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (to / f"run-{threads}.log").open("w") as log:
            self.process = subprocess.Popen(worker_command("run", engine, member, to, "--threads", str(threads)),
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
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


def measure(member: str, threads: int, prepared: dict[str, dict | None], work: Path, console: Console) -> list[dict]:
    workers = {}
    for engine, ready in prepared.items():
        if ready is not None:
            console.print(f"  load {engine}, {threads} thread(s)", style="dim")
            workers[engine] = Worker(engine, member, threads, work)
    times = {(e, i): {"wall_ms": [], "cpu_ms": []} for e in ENGINES for i in ("same", "new")}
    alive = {e: w for e, w in workers.items() if w.ready is not None}
    for number in range(ROUNDS + 1):
        for instruction in ("same", "new"):
            for engine, worker in alive.items():
                row = worker.run(REPLANS + (instruction == "same"), instruction)
                time.sleep(GAP_S)
                if number > 0:  # the first round is a warm-up; the first replan of "same" still sees a new instruction
                    for key, values in row.items():
                        times[engine, instruction][key] += values[(instruction == "same"):]
    rows = []
    for engine in ENGINES:
        row = {"engine": engine, "threads": threads, "ran": engine in alive}
        if engine in alive:
            alive[engine].close()
            row |= prepared[engine] | alive[engine].ready
            row["build_s"] = row.pop("prepare_s") + row.pop("load_s")
            for instruction in ("same", "new"):
                for key, values in times[engine, instruction].items():
                    row[f"{instruction}_{key}"] = statistics.median(values)
        rows.append(row)
    return rows


def pop_ns(bundle: Path) -> float:
    """Median nanoseconds of popping one action, measured by the C program."""
    command = [VLART_RUN, bundle, "--ort", onnxruntime_library(), "--repeat", str(POP_PASSES), "--json"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["pop"]["median_ms"] * 1e6


def table(profile: dict) -> Table:
    """ms per replan, wall and CPU, with the same and with a new instruction; MB resident while running and at the peak;
    seconds to build; largest difference from eager PyTorch."""
    t = Table(title=f"{profile['member']}: ms per replan (median), MB, s", title_justify="left", box=None,
              pad_edge=False,
              padding=(0, 1, 0, 0))
    for name in ("engine", "thr", "same", "cpu", "new", "cpu", "MB", "peak", "build", "error"):
        t.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    for r in profile["engines"]:
        if not r["ran"]:
            t.add_row(r["engine"], str(r["threads"]), "did not run")
            continue
        t.add_row(r["engine"], str(r["threads"]),
                  *(f"{r[k]:.2f}" for k in ("same_wall_ms", "same_cpu_ms", "new_wall_ms",
                  "new_cpu_ms")), f"{r['rss_mb']:.0f}", f"{r['peak_rss_mb']:.0f}", f"{r['build_s']:.0f}",
                  f"{r['max_abs']:.0e}")
    return t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", choices=["light", "heavy"], default="light")
    parser.add_argument("--threads", default="1,2", help="numbers of threads to measure with")
    parser.add_argument("--record", action="store_true", help=f"save the figures to {PROFILES}")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    work = Path("build/bench") / arguments.member
    # delete artefacts of another checkpoint
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    subprocess.run(worker_command("inputs", None, arguments.member, work), check=True)
    prepared = {}
    for engine in ENGINES:
        console.print(f"  prepare {engine}", style="dim")
        prepared[engine] = prepare(engine, arguments.member, work)
    rows = [row for threads in map(int, arguments.threads.split(","))
            for row in measure(arguments.member, threads, prepared, work, console)]
    library = Path("build/runtime_c/libvlart.so")
    profile = {"member": arguments.member, "machine": machine.describe("openvino", "executorch"), "rounds": ROUNDS,
               "replans_per_round": REPLANS,
               "engines": rows, "pop_ns": pop_ns(folder("vlacompile", work) / "policy.vlab"),
               "libvlart_bytes": library.stat().st_size}
    path = (PROFILES if arguments.record else work.parent) / f"bench-{arguments.member}.json"
    path.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    Console().print(table(profile))
    print(f"pop: {profile['pop_ns']:.0f} ns; libvlart.so: {profile['libvlart_bytes']} bytes; written to {path}")


if __name__ == "__main__":
    main()
