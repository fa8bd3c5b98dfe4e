"""A stage compiled by TVM, compared with the same stage in ONNX Runtime: `python -m benchmarks.tvm [--stages state
fusion.2]`.

Builds the light LIBERO-Goal policy three times: for ONNX Runtime, with `stages.tvm` and TVM's default schedules, and
with tuned schedules (profiles/host/tvm-schedules.json.gz; --trials adds to it). Times each stage of the golden frames
in
libvlart, every stage without caching, one thread, the bundles alternating; medians of rounds. Writes
build/bench/tvm.json; with --record profiles/host/tvm.json. To be recorded on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

import vlacompile as vc
from examples.libero_goal.policy import light
from vlacompile.profile import machine
from vlart.bundle.directory import read_bundle
from vlart.runtime.library import onnxruntime_library, tvm_libraries

ROOT = Path(__file__).resolve().parents[1]
FIGURES, RECORDED = ROOT / "build" / "bench" / "tvm.json", ROOT / "profiles" / "host" / "tvm.json"
SCHEDULES = ROOT / "profiles" / "host" / "tvm-schedules.json.gz"
VLART_RUN = ROOT / "build" / "runtime_c" / "vlart-run"
RECIPE = "libero-goal"


def build(stages: list[str], trials: int) -> dict[str, Path]:
    """{engine: bundle}"""
    folder = FIGURES.parent
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "recipes" / f"{RECIPE}.toml").read_text(encoding="utf-8")
    assert "[stages]" not in text, "the recipe has a table of stages: add to it"
    recipes = {"onnxruntime": RECIPE}
    for engine, more in (("tvm", ""), ("tvm searched", f'tvm_schedules = "{SCHEDULES}"\ntvm_trials = {trials}\n')):
        path = folder / f"{engine.replace(' ', '-')}.toml"
        path.write_text(f"{text}\n[stages]\ntvm = {json.dumps(stages)}\n{more}", encoding="utf-8")
        recipes[engine] = str(path)
    return {engine: vc.build(light(), recipe=r, out=folder / f"{engine.replace(' ', '-')}.vlab").path
            for engine, r in recipes.items()}


def times(bundle: Path, repeat: int) -> dict[str, float]:
    """{stage: ms of the fastest run}"""
    ffi, runtime = (tvm_libraries()[option] for option in ("tvm_ffi_library", "tvm_library"))
    command = [VLART_RUN, bundle, "--ort", onnxruntime_library(), "--tvm-ffi", ffi, "--tvm", runtime, "--threads", "1",
               "--native-code", "--cold", "--repeat", str(repeat), "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {s["name"]: s["min_ms"] for s in report["stages"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=["state", "fusion.*"], help="patterns (default: the small ones)")
    parser.add_argument("--trials", type=int, default=0, help="candidates per stage for kernels without a schedule")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeat", type=int, default=20, help="repetitions of the golden frames per round")
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/")
    arguments = parser.parse_args()
    bundles = build(arguments.stages, arguments.trials)
    ahead = {s.name for s in read_bundle(bundles["tvm"]).plan.stages if s.backend == "tvm"}
    notes = [n for n in read_bundle(bundles["tvm searched"]).manifest["provenance"]["notes"] if n.startswith("TVM: ")]
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(arguments.rounds):
        for engine, bundle in bundles.items():
            for name, ms in times(bundle, arguments.repeat).items():
                if name in ahead:
                    found[name][engine].append(ms)
    figures = {"machine": machine.describe("apache-tvm"), "rounds": arguments.rounds, "notes": notes,
               "unit": "ms: median over rounds of the fastest run of each, one thread",
               "stages": {n: {e: statistics.median(t) for e, t in row.items()} for n, row in found.items()}}
    path = RECORDED if arguments.record else FIGURES
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, row in figures["stages"].items():
        print(f"{name:<12}" + "".join(f" {engine} {ms:9.3f} ms  " for engine, ms in row.items()))
    print(*notes, f"figures: {path.relative_to(ROOT)}", sep="\n")


if __name__ == "__main__":
    main()
