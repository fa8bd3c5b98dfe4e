"""What smoothing and rotation leave of the error of int8 with one static scale per tensor, as boards compute it.

    python -m benchmarks.rotations [NAME ...] [--record]     light, heavy, sample policies, and every system of the zoo

All layers that can be are in int8, the rest in fp16; each policy is quantised plain, with smoothing, with rotations
where they win, and with both. The error is that of actions on observations that nothing was calibrated on, simulated as
TensorRT computes it. The LIBERO-Goal pair is trained and has recorded observations; the others have random weights and
generated ones. --record: profiles/host/rotations.json, where systems that are not named stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import vlacompile as vc
from vlacompile.compiler.staging.observations import as_stacked, calibration
from vlacompile.phases.choose_precision import choose_precision
from vlacompile.phases.load_policy import load_policy
from vlacompile.phases.phase import Phase, silent
from vlacompile.phases.read_inputs import read_inputs
from vlacompile.phases.verify_staging import Verified
from vlacompile.pipeline import until
from vlacompile.profile import machine
from vlacompile.recipe.recipe import load_recipe
from vlacompile.zoo.names import dashed, module_names

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "profiles" / "host" / "rotations.json"
TARGET, OBSERVATIONS = "orin-nano-8gb", 8
TRAINED = {m: f"examples.libero_goal.policy:{m}" for m in ("light", "heavy")}
SAMPLES = {f"sample {n}": f"tests.samples.policies:{n}" for n in ("late_fusion", "flow", "two_cameras")}
WAYS = {"plain": "", "smoothed": "smooth = 0.5", "rotated": 'rotate = "auto"', "both": 'smooth = 0.5\nrotate = "auto"'}
RECIPE = """name = "int8-{way}"
description = "All layers in int8"

[precision]
layers = "int8"
base = "fp16"
{options}
"""


def with_observations(policy: vc.Policy) -> vc.Policy:
    """Generated ones in the place of recorded ones, so that an error on others is measured."""
    found = calibration(policy, load_recipe("int8").precision, OBSERVATIONS)
    return replace(policy, calibration=tuple(policy.example_inputs | as_stacked(policy, x) for x in found))


def measure(source: str, folder: Path) -> dict:
    policy = load_policy(source)
    recorded = bool(policy.calibration)
    policy = policy if recorded else with_observations(policy)
    ways: dict[str, dict] = {}
    verified: Verified | None = None
    for way, options in WAYS.items():
        recipe = folder / f"{way}.toml"
        recipe.write_text(RECIPE.format(way=way, options=options), encoding="utf-8")
        inputs = read_inputs(policy, TARGET, str(recipe), progress=silent)
        if verified is None:
            found = until(Phase.VERIFY_STAGING, inputs)
            assert isinstance(found, Verified)
            verified = found
        began = time.process_time()
        precise = choose_precision(inputs, verified, progress=silent)
        facts = precise.facts
        groups = [g for r in facts["rotations"] for g in r["groups"]]
        ways[way] = {"error": facts["simulated"].get("tensorrt"), "groups": len(groups),
                     "products": sum(g["products"] for g in groups), "seconds": round(time.process_time() - began, 1)}
    return {"recorded": recorded, "ways": ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of which policies; all by default")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sources = TRAINED | SAMPLES | {n: f"zoo:{n}@tiny" for n in map(dashed, module_names())}
    kept = json.loads(RECORD.read_text(encoding="utf-8"))["policies"] if RECORD.is_file() and arguments.names else {}
    found: dict[str, dict] = kept
    for name in arguments.names or sources:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = measure(sources[name], Path(folder))
                errors = [f"{w} {r['error']:.4f}" if r["error"] is not None else f"{w} none"
                          for w, r in found[name]["ways"].items()]
                print(f"{name:20} {', '.join(errors)}", flush=True)
            except vc.VlaError as error:
                found[name] = {"refused": error.what}
                print(f"{name:20} {error.what}", flush=True)
        if arguments.record:
            figures = {"machine": machine.describe("torch"), "target": TARGET, "policies": found}
            RECORD.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
