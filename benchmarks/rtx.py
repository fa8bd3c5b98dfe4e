"""NVIDIA's compiler on every stage of every policy in every mode: the matrix behind `vlacompile check --tensorrt`.

    python -m benchmarks.rtx                              all that have no record yet, one after the other (hours on
                                                          a busy machine; each record is written as soon as it is done)
    python -m benchmarks.rtx --policy act --mode int4     only this one
    python -m benchmarks.rtx --policy smolvla-sized       one of LeRobot's default size (gigabytes)
    python -m benchmarks.rtx --again                      also those with a record: after a change of the emitters
    python -m benchmarks.rtx --check-only                 bundles that exist in --bundles, without building any

The LIBERO-Goal pair with its own weights, and LeRobot's policies with random weights, at small widths with the complete
structure and some at their real size, for an Orin Nano 8 GB. A bundle is built in the environment that its policy needs
and checked by this interpreter, which has the extra `rtx`; every stage is compiled in a process of its own. Writes
profiles/rtx/POLICY-MODE.json: what the compiler accepted and fused. Nothing is run on a board, and nothing here says
anything about latency.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from examples.libero_goal.policy import recipe_of
from vlacompile.check.tensorrt import BundleCheck, check_bundle
from vlacompile.frontends.environments import ENVIRONMENTS

TARGET = "orin-nano-8gb"
PAIR = ("light", "heavy")
LEROBOT = ("act", "diffusion", "vqbet", "smolvla", "pi0", "pi05", "groot")
SIZED = ("act-sized", "diffusion-sized", "smolvla-sized")
MODES = ("fp16", "int8", "int4", "int8-fp16")
SIZED_MODES = ("fp16", "int8")
# The subset that `make test-full` runs, five minutes on two idle cores: each kind of layer, additive masks, weights
# read
# in two dtypes
QUICK = (("act", "fp16"), ("act", "int4"), ("smolvla", "fp16"), ("smolvla", "int8-fp16"), ("pi0", "fp16"))
PROFILES, BUNDLES = Path("profiles/rtx"), Path("build/rtx")
INT8_IN_FP16 = """name = "int8-fp16"
description = "Every layer in int8, the rest in fp16"
[precision]
base = "fp16"
layers = "int8"
"""
BUILD = """
import sys
import vlacompile as vc
kind, source, recipe, out = sys.argv[1:]
real, kind = kind.endswith("-sized"), kind.removesuffix("-sized")
if kind in {pair!r}:
    vc.build(source, target={target!r}, recipe=recipe, out=out)
else:
    from pathlib import Path
    from tests.environments.lerobot.checkpoints import sized, write
    if not Path(source, "config.json").is_file():
        write(kind, Path(source), real)
    with sized(kind, real):
        vc.build(source, target={target!r}, recipe=recipe, out=out)
"""


@dataclass(frozen=True)
class Case:
    """policy: one of PAIR, LEROBOT or SIZED. mode: one of MODES."""

    policy: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.policy}-{self.mode}"

    def record(self, profiles: Path = PROFILES) -> Path:
        return profiles / f"{self.name}.json"


CASES = (*(Case(p, m) for m in MODES for p in (*PAIR, *LEROBOT)), *(Case(p, m) for m in SIZED_MODES for p in SIZED))


def build(case: Case, folder: Path) -> Path:
    """The bundle, built in a process of its own, or the one of an earlier run if it exists. Raises CalledProcessError
    with the build's message in `stderr`."""
    out = (folder / f"{case.name}.vlab").absolute()
    if not out.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        pair = case.policy in PAIR
        source = (f"examples.libero_goal.policy:{case.policy}" if pair
                  else str((folder / f"{case.policy}-checkpoint").absolute()))
        python = sys.executable if pair else str(ENVIRONMENTS["lerobot"].python)
        subprocess.run([python, "-W", "ignore", "-c", BUILD.format(pair=PAIR, target=TARGET), case.policy, source,
                        _recipe(case, folder), str(out)], check=True, capture_output=True, text=True)
    return out


def _recipe(case: Case, folder: Path) -> str:
    if case.mode == "int8-fp16":
        path = folder / "int8-fp16.toml"
        path.write_text(INT8_IN_FP16, encoding="utf-8")
        return str(path.absolute())
    return recipe_of(case.mode) if case.policy in PAIR else case.mode


def record(case: Case, found: BundleCheck, built_with: dict) -> dict:
    """The record of a check: per stage the outcome, bytes, and planned and actual fusions."""
    stages = []
    for s in found.stages:
        b = s.build
        stages.append({
            "stage": s.stage, "passed": s.passed, "refusal": s.refusal, "faults": list(s.faults), "kernels": s.kernels,
            "engine_bytes": s.engine_bytes, "engine_bytes_planned": [b.engine_bytes_min, b.engine_bytes_max],
            "weight_bytes": s.weight_bytes, "weight_bytes_planned": b.weight_bytes,
            "activation_bytes": s.activation_bytes, "activation_bytes_planned": b.activation_bytes,
            "counts": {c.what: {"found": c.found, "planned": c.planned, "missing": list(c.missing)} for c in s.counts}})
    whole = found.as_dict()
    return {"policy": case.policy, "mode": case.mode, "label": whole["label"], "target": found.target,
            "recipe": found.recipe,
            "compiler": next((s.compiler for s in found.stages if s.compiler), ""), "versions": built_with,
            "passed": found.passed, "stages": stages}


def measure(case: Case, folder: Path) -> dict:
    bundle = build(case, folder)
    versions = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["provenance"]["versions"]
    return record(case, check_bundle(bundle), versions)


def line(kept: dict) -> str:
    """One row for a person."""
    good = sum(s["passed"] for s in kept["stages"])
    fused = "  ".join(f"{what} {sum(s['counts'][what]['found'] for s in kept['stages'] if s['counts'])}"
                      f"/{sum(s['counts'][what]['planned'] for s in kept['stages'] if s['counts'])}"
                      for what in ("INT8 products", "fused INT4", "fused attentions"))
    return f"{kept['policy']:15} {kept['mode']:9} {good}/{len(kept['stages'])} stages  {fused}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=(*PAIR, *LEROBOT, *SIZED), action="append")
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--again", action="store_true", help="also those that have a record already")
    parser.add_argument("--bundles", type=Path, default=BUNDLES, help="where bundles are stored (default: %(default)s)")
    parser.add_argument("--check-only", action="store_true", help="check existing bundles, build none")
    arguments = parser.parse_args()
    failed = 0
    for case in CASES:
        if case.policy not in (arguments.policy or case.policy) or case.mode not in (arguments.mode or case.mode):
            continue
        path = case.record()
        if path.is_file() and not arguments.again:
            continue
        if arguments.check_only and not (arguments.bundles / f"{case.name}.vlab").is_dir():
            continue
        begin = time.perf_counter()
        try:
            kept = measure(case, arguments.bundles)
        except subprocess.CalledProcessError as error:
            print(f"{case.policy:15} {case.mode:9} DOES NOT BUILD\n{error.stderr[-2000:]}", flush=True)
            failed += 1
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"{line(kept)}  {time.perf_counter() - begin:.0f} s", flush=True)
        for s in kept["stages"]:
            if not s["passed"]:
                print(f"    {s['stage']}: {s['refusal'] or '; '.join(s['faults'])}", flush=True)
        failed += not kept["passed"]
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
