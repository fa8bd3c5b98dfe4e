"""What a flight recorder does to a control loop: a million ticks at 1 kHz in pairs with and without it.

    python -m benchmarks.recorder [--record] [--pairs N] [--fast PAIRS] [--cuts N]

A policy with two cameras is compiled; runtime_c/bench/recorder.c pops an action per tick and replans where one is due,
in blocks that take turns with and without a recorder, and counts allocations of the control thread. Then as fast as
the processor allows, so that the recorder's memory overflows: every loss must be told. Then power is cut: copies of a
recording that lost any part, at any byte, are read and replayed. Writes build/bench/ (--record: profiles/host/)
recorder.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

import vlacompile as vc
from vlacompile.profile import machine
from vlart.recording.log import Log
from vlart.recording.replay import Opened
from vlart.recording.replayed import replay
from vlart.runtime.library import onnxruntime_library

PROGRAM = Path("build/runtime_c/bench_recorder")
FOLDER = Path("build/bench")
SIDE, STEPS, EXECUTE, DIM = 224, 50, 33, 7
BLOCK = 1000  # ticks
PRIORITY = 50  # of the control thread, SCHED_FIFO, where the system grants it
RESAMPLES = 4000


class TwoCameras(torch.nn.Module):
    """Large observations and little work, so that what is seen is the recorder's part."""

    def __init__(self) -> None:
        super().__init__()
        self.see = torch.nn.Linear(2 * 3 * 16, 32)
        self.act = torch.nn.Linear(32 + DIM, STEPS * DIM)

    def forward(self, base: torch.Tensor, wrist: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = [torch.nn.functional.avg_pool2d(image.float().permute(0, 3, 1, 2) / 255, SIDE // 4).flatten(1)
                for image in (base, wrist)]
        features = torch.tanh(self.see(torch.cat(seen, 1)))
        return {"action": self.act(torch.cat([features, state], 1)).tanh().reshape(1, STEPS, DIM)}


def two_cameras() -> vc.Policy:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (1, SIDE, SIDE, 3), dtype=torch.uint8)
    return vc.Policy("two-cameras", TwoCameras().eval(),
                     sources={name: vc.Source("observation", clock=30.0) for name in ("base", "wrist", "state")},
                     example_inputs={"base": image, "wrist": image.flip(1), "state": torch.rand(1, DIM)})


def build() -> Path:
    FOLDER.mkdir(parents=True, exist_ok=True)
    recipe = FOLDER / "recorder.toml"
    recipe.write_text(f'name = "recorder"\ndescription = "for this measurement"\n[action]\nexecute = {EXECUTE}\n',
                      encoding="utf-8")
    return vc.build(two_cameras(), recipe=str(recipe), out=FOLDER / "recorder.vlab").path


def run(bundle: Path, pairs: int, period_us: int) -> dict:
    """What bench_recorder prints, and what the recording says of itself."""
    file = FOLDER / f"recorder-{period_us}.vlog"
    file.unlink(missing_ok=True)
    command = [str(PROGRAM), str(bundle), str(onnxruntime_library()), str(file), str(pairs), str(BLOCK),
               str(period_us), str(PRIORITY if period_us else 0)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    log = Log(file)
    missing = sum(_gaps([e.sequence for e in log.events if e.track == track and e.role != "writer"])
                  for track in {e.track for e in log.events if e.role != "writer"})
    return found | {"log_events": log.info.events, "log_missing_blocks": log.info.missing_blocks,
                    "log_told_losses": log.losses[0], "log_gaps": missing}


def _gaps(sequences: list[int]) -> int:
    return sum(b - a - 1 for a, b in itertools.pairwise(sequences))


def compared(found: dict) -> dict:
    """Of the blocks' medians and 99th percentiles: mean difference with - without in us, and its 95 % interval over
    pairs (bootstrap)."""
    rng, rows = np.random.default_rng(0), {}
    for of in ("median_ns", "p99_ns"):
        pairs = (np.array(found["with"][of], float) - np.array(found["without"][of], float)) / 1e3
        picks = rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))
        low, high = np.quantile(np.median(pairs[picks], 1), [0.025, 0.975])
        rows[of.removesuffix("_ns")] = {"difference_us": float(np.median(pairs)), "low_us": float(low),
                                        "high_us": float(high), "without_us": float(np.median(found["without"][of])
                                                                                    / 1e3)}
    return rows


def cut(file: Path, bundle: Path, cuts: int) -> dict:
    """Copies of a recording that a cut of power left: it ends at any byte, or any share of its newest blocks is as it
    was before, or is torn at a byte."""
    rng, data = np.random.default_rng(1), bytearray(file.read_bytes())
    log = Log(file)
    head = len(data) - log.info.block_count * 4096
    whole = {(e.track, e.sequence): (e.kind, tuple(e.fields.values()), e.rest) for e in log.events}
    used = head + (log.info.last_block % log.info.block_count + 1) * 4096
    damaged, readable, equal, kept = FOLDER / "cut.vlog", 0, 0, []
    began, compared, opened = time.perf_counter(), 0, Opened(bundle, None, threads=1)
    for number in range(cuts):
        left = bytearray(data)
        if number % 2:
            del left[int(rng.integers(head, used)):]
        else:
            for block in rng.integers(head // 4096, used // 4096, int(rng.integers(1, 6))):
                at = int(block) * 4096 + int(rng.integers(0, 4096))  # the rest of the block was not written
                left[at:(int(block) + 1) * 4096] = bytes((int(block) + 1) * 4096 - at)
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(left)
        found = Log(damaged)
        same = all(whole[e.track, e.sequence] == (e.kind, tuple(e.fields.values()), e.rest) for e in found.events)
        readable += same
        kept.append(found.info.events / log.info.events)
        replayed = replay(found, bundle, opened=opened)
        equal += replayed.parted is None
        compared += replayed.chunks + replayed.actions
    opened.close()
    return {"cuts": cuts, "readable": readable, "replayed_equal": equal, "compared": compared,
            "events": log.info.events, "kept_least": min(kept), "kept_median": float(np.median(kept)),
            "seconds": time.perf_counter() - began}


def episode(bundle: Path, file: Path, episodes: int = 6) -> None:
    """A short recording of several episodes, to be cut."""
    rng = np.random.default_rng(2)
    file.unlink(missing_ok=True)
    with vc.Recorder(file, mib=8) as recorder, vc.Session(bundle, threads=1, record=recorder) as session:
        for _ in range(episodes):
            session.reset()
            for _ in range(2):
                for name in ("base", "wrist"):
                    session.write(name, rng.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8))
                session.write("state", rng.random((1, DIM), np.float32))
                session.step()
                session.pop_rows(EXECUTE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    parser.add_argument("--pairs", type=int, default=500, help="of blocks of 1000 ticks at 1 kHz")
    parser.add_argument("--fast", type=int, default=500, help="the same, as fast as possible")
    parser.add_argument("--cuts", type=int, default=1000)
    arguments = parser.parse_args()
    subprocess.run(["make", "-s", "-C", "runtime_c", "BUILD=../build/runtime_c", f"../{PROGRAM}"], check=True)
    bundle, rows = build(), {}
    for name, pairs, period in (("real_time", arguments.pairs, 1000), ("fast", arguments.fast, 0)):
        found = run(bundle, pairs, period)
        found["compared"] = compared(found)
        for arm in ("with", "without"):
            del found[arm]["median_ns"], found[arm]["p99_ns"]
        rows[name] = found
        print(name, json.dumps(found["compared"]), {k: found[k] for k in ("events", "lost_events", "allocations")})
    file = FOLDER / "episodes.vlog"
    episode(bundle, file)
    rows["cuts"] = cut(file, bundle, arguments.cuts)
    print("cuts", rows["cuts"])
    out = Path("profiles/host" if arguments.record else FOLDER) / "recorder.json"
    out.write_text(json.dumps(rows | {"machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
