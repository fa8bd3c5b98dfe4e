"""The plans of LeRobot policies of real size, made without their weights: shapes alone, a gigabyte and minutes each.

    python -m benchmarks.plans [pi0 pi05 groot smolvla ...]      (in the environment lerobot)

Writes profiles/plans/<kind>.json: the document of `vlacompile plan --json --no-weights`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

PLANS = Path("profiles/plans")
WORK = Path("build/plans")
KINDS = ("groot", "pi0", "pi05", "smolvla")


def plan(kind: str) -> dict:
    from tests.lerobot.checkpoints import sized, write
    from vlacompile import pipeline

    folder = WORK / kind / "pretrained_model"
    shutil.rmtree(folder.parent, ignore_errors=True)
    write(kind, folder.absolute(), real=True, weights=False)
    with sized(kind, real=True):
        return pipeline.plan(folder, weights=False).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"{', '.join(KINDS)} (default: all)")
    arguments = parser.parse_args()
    PLANS.mkdir(parents=True, exist_ok=True)
    for kind in arguments.kinds:
        begin = time.perf_counter()
        document = plan(kind)
        (PLANS / f"{kind}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - begin
        print(f"{kind}: {document['parameters']}; {seconds:.0f} s, {peak:.0f} MB at most", flush=True)


if __name__ == "__main__":
    main()
