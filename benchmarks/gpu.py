"""What a discrete GPU can show of the compiler's bundles, in one run of less than ten minutes: `make gpu`.

    python -m benchmarks.gpu                    # on a machine with an NVIDIA GPU
    python -m benchmarks.gpu --device cpu       # a rehearsal: the same steps on the processor

It is no Jetson and says nothing of one's times. Steps: what the machine is; bundles for TensorRT in fp16 and int8; what
products lose there; the emitted graphs by PyTorch and by ONNX Runtime on the GPU, against the limits that the compiler
predicted; `verify --through tensorrt`; stages that TVM compiles for the GPU's architecture, through libvlart and the
real libraries. Each step is a process with a budget; what is not installed is skipped and says why.

Writes profiles/gpu/NAME.json and NAME.log. A rehearsal writes build/gpu/rehearsal.json, says so in it, and is never
recorded as a GPU's. Nothing was recorded so far: no GPU was at hand.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlart.errors import ConfigError
from vlart.files.atomic import write_file

ROOT = Path(__file__).parents[1]
RECORDED, REHEARSED = ROOT / "profiles" / "gpu", ROOT / "build" / "gpu"
LABELS = {"cuda": "on a discrete GPU, which is no Jetson",
          "cpu": "a rehearsal on a processor: nothing of it is a GPU's"}
# {step of benchmarks/gpu_steps.py: seconds}
BUDGETS = {"machine": 20, "build": 150, "products": 40, "graphs-fp16": 50, "graphs-int8": 50, "onnxruntime": 50,
           "tensorrt": 110, "tvm": 130}
MOST_S = 600


@dataclass(frozen=True)
class Result:
    """status: passed, failed, skipped, "out of time" or crashed. figures: the step's own."""

    step: str
    status: str
    why: str
    seconds: float
    budget_s: float
    figures: dict


def run_step(step: str, command: Sequence[str], budget_s: float, log: Path) -> Result:
    """Its last line is its result. What it started ends with it, whatever happens."""
    began = time.monotonic()
    with log.open("a+b") as file:
        file.write(f"== {step}\n".encode())
        file.flush()
        begin = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                   start_new_session=True)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(budget_s)
        finally:
            ended = process.returncode
            _end(process)
        file.seek(begin)
        said = file.read().decode(errors="replace").strip().splitlines()
    seconds = round(time.monotonic() - began, 1)
    if ended is None:
        return Result(step, "out of time", f"it took more than its {budget_s:g} s", seconds, budget_s, {})
    try:
        found = json.loads(said[-1])
        return Result(step, found["status"], found.get("why", ""), seconds, budget_s, found.get("figures", {}))
    except (IndexError, ValueError, KeyError, TypeError):
        last = said[-1] if said else "it said nothing"
        return Result(step, "crashed", f"status {ended}: {last[:200]}", seconds, budget_s, {})


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rehearse_or_record(device: str, steps: Sequence[str] = tuple(BUDGETS), *, python: str = sys.executable,
                       progress: Callable[[str], None] = print, recorded: Path = RECORDED,
                       rehearsed: Path = REHEARSED) -> tuple[dict, Path]:
    """(document, its file). Raises ConfigError where "cuda" is asked for and there is no GPU."""
    with tempfile.TemporaryDirectory() as scratch:
        log, results = Path(scratch) / "log", []
        for step in steps:
            progress(f"{step} (at most {BUDGETS[step]} s)")
            command = [python, "-W", "ignore", "-m", "benchmarks.gpu_steps", step, "--device", device, "--folder",
                       scratch]
            found = run_step(step, command, BUDGETS[step], log)
            results.append(found)
            progress(f"  {found.status}, {found.seconds} s" + (f": {found.why}" if found.why else ""))
            if step == "machine" and device == "cuda" and found.status != "passed":
                raise ConfigError("there is no GPU here", where="--device cuda", why=found.why,
                                  fix="run it on a machine with an NVIDIA GPU and its driver; --device cpu rehearses")
        text = log.read_bytes()
    gpus = results[0].figures.get("gpu") or []
    document = {"device": device, "label": LABELS[device], "rehearsal": device != "cuda",
                "date": dt.datetime.now(dt.UTC).date().isoformat(), "results": [asdict(r) for r in results]}
    place = recorded / re.sub(r"\W+", "-", gpus[0].split(",")[0]).strip("-").lower() if device == "cuda" else \
        rehearsed / "rehearsal"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_file(place.with_suffix(".log"), text.replace(scratch.encode(), b"."))
    write_file(place.with_suffix(".json"), (json.dumps(document, indent=1) + "\n").encode())
    return document, place.with_suffix(".json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=LABELS, default="cuda", help="cpu: a rehearsal, never recorded as a GPU's")
    parser.add_argument("--steps", nargs="+", choices=BUDGETS, default=list(BUDGETS), metavar="STEP",
                        help=f"of {', '.join(BUDGETS)} (default: all); machine always runs")
    args = parser.parse_args()
    steps = [s for s in BUDGETS if s == "machine" or s in args.steps]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the step at work ends with this
    try:
        document, path = rehearse_or_record(args.device, steps, progress=lambda words: print(words, flush=True))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    counts = {s: sum(r["status"] == s for r in document["results"]) for s in
              ("passed", "failed", "skipped", "out of time", "crashed")}
    print(f"\n{document['label']}: " + ", ".join(f"{n} {s}" for s, n in counts.items() if n))
    print(f"{path.relative_to(ROOT)}, and {path.with_suffix('.log').name} beside it")
    return 1 if counts["failed"] or counts["crashed"] or counts["out of time"] else 0


if __name__ == "__main__":
    sys.exit(main())
