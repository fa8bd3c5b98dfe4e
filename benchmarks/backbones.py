"""A pair of policies in one bundle, compared with two separate bundles: `python -m benchmarks.backbones [--record]`.

The LIBERO-Goal members in fp32, joined and separate. Each variant runs in processes of its own, alternately: bytes on
disk, time to the first action, resident memory, latency of a replan with a new observation, and of switching to the
other member in the middle of an observation (the cost of escalation). Writes build/bench/backbones.json; with --record
profiles/host/backbones.json. To be recorded on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIGURES, RECORDED = ROOT / "build" / "bench" / "backbones.json", ROOT / "profiles" / "host" / "backbones.json"
BUNDLES = ROOT / "build" / "bench" / "backbones"
RECIPE, MEMBERS, WAYS = "libero-goal", ("light", "heavy"), ("joined", "apart")


def build() -> None:
    import vlacompile as vc
    from examples.libero_goal import policy

    BUNDLES.mkdir(parents=True, exist_ok=True)
    made = {m: getattr(policy, m)() for m in MEMBERS}
    for name, source in {**made, "joined": vc.join(made, "libero_goal")}.items():
        vc.build(source, recipe=RECIPE, out=BUNDLES / f"{name}.vlab")


def worker(way: str, repeat: int) -> None:
    """Measure one variant in this process; prints a line of JSON."""
    began = time.perf_counter()
    import vlacompile as vc
    from vlart.verify.frames import read_frames

    if way == "joined":
        session = vc.Session(BUNDLES / "joined.vlab", threads=1)
        sessions = dict.fromkeys(MEMBERS, session)
    else:
        sessions = {m: vc.Session(BUNDLES / f"{m}.vlab", threads=1) for m in MEMBERS}
    example = read_frames(BUNDLES / "joined.vlab" / "golden" / "golden.bin")[0].writes
    rng = np.random.default_rng(0)

    def own(member: str, name: str) -> str | None:
        """The member session's name for an input of the joined policy; None: an input of the other member."""
        owner, _, rest = name.partition(".")
        if owner not in MEMBERS:
            return name
        return (name if way == "joined" else rest) if owner == member else None

    def take(member: str, observation: dict[str, np.ndarray]) -> np.ndarray:
        s = sessions[member]
        if way == "joined":
            s.select(member)
        for name, array in observation.items():
            if (known := own(member, name)) is not None:
                s.write(known, array)
        s.step()
        return s.read(f"{member}.action" if way == "joined" else "action")

    def look() -> dict[str, np.ndarray]:
        new = {n: rng.integers(0, 256, a.shape, dtype=np.uint8) for n, a in example.items() if a.dtype == np.uint8
               and a.ndim == 4}
        return example | new

    first = {m: take(m, example) for m in MEMBERS}
    ready = time.perf_counter() - began
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeat):
        for member, other in (MEMBERS, MEMBERS[::-1]):
            seen = look()
            for name, who in ((f"replan {member}", member), (f"over to {other}", other)):
                at = time.perf_counter()
                take(who, seen)
                times[name].append(1e3 * (time.perf_counter() - at))
    resident = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("VmRSS:")) / 1024
    print(json.dumps({"ready_s": ready, "resident_mb": resident, "ms": times,
                      "first": {m: a.tolist() for m, a in first.items()}}))


def size(way: str) -> int:
    """Bytes that a robot needs: without golden vectors."""
    names = ("joined",) if way == "joined" else MEMBERS
    return sum(p.stat().st_size for n in names for p in (BUNDLES / f"{n}.vlab").rglob("*")
               if p.is_file() and "golden" not in p.parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7, help="processes per variant")
    parser.add_argument("--repeat", type=int, default=30, help="observations per process")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.repeat)
        return
    from vlacompile.profile import machine

    build()
    found = {way: [] for way in WAYS}
    for number in range(arguments.rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            command = [sys.executable, "-m", "benchmarks.backbones", "--worker", way, "--repeat", str(arguments.repeat)]
            found[way].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True,
                                                        cwd=ROOT).stdout))
    apart = max(float(np.abs(np.subtract(found["joined"][0]["first"][m], found["apart"][0]["first"][m])).max())
                for m in MEMBERS)
    assert apart <= 1e-4, f"the joined members act differently: {apart:.2g}"

    def median(way: str, of) -> float:
        return statistics.median(of(row) for row in found[way])

    names = list(found["joined"][0]["ms"])
    figures = {"machine": machine.describe("onnxruntime"), "rounds": arguments.rounds, "repeat": arguments.repeat,
               "unit": "medians over processes, in turns, one thread", "max_abs": apart,
               "ways": {way: {"bytes": size(way), "ready_s": median(way, lambda r: r["ready_s"]),
                              "resident_mb": median(way, lambda r: r["resident_mb"]),
                              "ms": {n: median(way, lambda r, n=n: statistics.median(r["ms"][n])) for n in names}}
                        for way in WAYS}}
    path = RECORDED if arguments.record else FIGURES
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for way, r in figures["ways"].items():
        print(f"{way:7} {r['bytes'] / 1e6:7.1f} MB  ready in {r['ready_s']:.2f} s  {r['resident_mb']:6.0f} MB "
              f"resident  "
              + "  ".join(f"{n} {ms:.2f} ms" for n, ms in r["ms"].items()))
    print(f"figures: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
