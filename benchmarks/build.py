"""Time, memory and bytes of builds, phase by phase: where the compiler's own effort goes.

    python -m benchmarks.build [NAME=SOURCE[,RECIPE[,TARGET]] ...] [--record]

SOURCE: as of `vlacompile build`. Without any: sample policies, for the host. Writes build/bench/build.json; --record:
adds to profiles/host/build.json instead. Every policy is built in a process of its own, after a small one, so that
imports and tables count for none. Processor seconds, which other work on the machine changes little, are of
one thread. Memory is anonymous: mapped pages of weights, which the system may drop, are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vlacompile import pipeline
from vlacompile.compiler.capture.modules import modules_of
from vlacompile.hardware.process_memory import AnonymousPeak, anonymous_bytes
from vlacompile.phases.phase import Phase, silent
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.policy.policy import Policy
from vlacompile.profile import machine
from vlart.files.atomic import write_file

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "profiles" / "host" / "build.json"
POLICIES = "tests.samples.policies"
SMALL = f"{POLICIES}:remember"
SIZED = "tests.samples.sized_policies"
SAMPLES = {"flow": f"{POLICIES}:flow", "two-cameras": f"{POLICIES}:two_cameras",
           "60 M weights": f"{SIZED}:sixty_million", "60 M weights in bf16": f"{SIZED}:sixty_million_in_bf16",
           "60 M weights in int8": f"{SIZED}:sixty_million,int8"}


def measured(source: str, recipe: str | None = None, target: str = "host") -> dict:
    """One build: what it was given, and what each phase took. base_bytes: of the process before."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _built(SMALL, None, "host", Path(folder) / "small.vlab", {})
        base, phases = anonymous_bytes(), {}
        bundle, inputs = _built(source, recipe, target, Path(folder) / "policy.vlab", phases)
        stored = [sum(w.type.bytes for w in {bundle.plan.weights[i.weight] for i in s.initializers})
                  for s in bundle.plan.stages]
        return {"source": source, "recipe": inputs.recipe.name, "target": target, "base_bytes": base,
                "weight_bytes": weight_bytes(inputs.policy), "largest_stage_bytes": max(stored, default=0),
                "bundle_bytes": bundle.bytes, "phases": phases}


def _built(source: str, recipe: str | None, target: str, out: Path, phases: dict):
    """(bundle, inputs). phases: filled with {phase: {cpu_s, wall_s, anonymous_bytes}}."""
    with AnonymousPeak() as peak:
        cpu, wall = time.process_time(), time.perf_counter()

        def end(phase: Phase) -> None:
            nonlocal cpu, wall
            now = time.process_time(), time.perf_counter()
            phases[str(phase)] = {"cpu_s": round(now[0] - cpu, 3), "wall_s": round(now[1] - wall, 3),
                                  "anonymous_bytes": peak.take()}
            cpu, wall = now

        inputs = read_inputs(source, target, recipe, out, progress=silent)
        bundle = None
        for phase, result in pipeline.run(inputs):
            end(phase)
            bundle = result
        return bundle, inputs


def weight_bytes(policy: Policy) -> int:
    """Of the policy's parameters in their own dtypes, each once."""
    modules = modules_of(*policy.functions).values()
    return sum(p.numel() * p.element_size() for p in {id(p): p for m in modules for p in m.parameters()}.values())


def table(rows: dict[str, dict]) -> str:
    """A line per policy and phase."""
    lines = [f"{'':24s} {'phase':18s} {'cpu s':>8s} {'wall s':>8s} {'MB':>8s}"]
    for name, row in rows.items():
        lines.append(f"{name:24s} {'weights':18s} {'':17s} {row['weight_bytes'] / 1e6:8.0f}")
        lines += [f"{'':24s} {phase:18s} {of['cpu_s']:8.1f} {of['wall_s']:8.1f} {of['anonymous_bytes'] / 1e6:8.0f}"
                  for phase, of in row["phases"].items()]
    return "\n".join(lines)


def _in_own_process(spec: str) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.build", "--one", spec]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", metavar="NAME=SOURCE[,RECIPE[,TARGET]]")
    parser.add_argument("--record", action="store_true", help="add the figures to profiles/host")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measured(*given.one.split(","))))
        return
    path = RECORD if given.record else Path("build/bench/build.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8"))["builds"] if given.record and path.is_file() else {}
    for name, spec in (dict(p.split("=", 1) for p in given.policies) or SAMPLES).items():
        found[name] = _in_own_process(spec)
        print(table({name: found[name]}), flush=True)
        write_file(path, (json.dumps({"machine": machine.describe(), "builds": found}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
