"""The plans of LeRobot policies of real size, made from shapes only, without weights: a gigabyte and minutes each.

    python -m benchmarks.plans [pi0 pi05 groot smolvla ...]      (in the environment lerobot)
    python -m benchmarks.plans --board orin-nano-8gb [pi0 ...]

Writes profiles/plans/<kind>.json: the document of `vlacompile plan --json --no-weights`. With a board, the part about
its memory: profiles/fit/<kind>-<board>.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

PLANS, FITS = Path("profiles/plans"), Path("profiles/fit")
WORK = Path("build/plans")
KINDS = ("groot", "pi0", "pi05", "smolvla")


def plan(kind: str, board: str | None = None) -> dict:
    from tests.environments.lerobot.checkpoints import sized, write
    from vlacompile import pipeline

    folder = WORK / kind / "pretrained_model"
    shutil.rmtree(folder.parent, ignore_errors=True)
    write(kind, folder.absolute(), real=True, weights=False)
    with sized(kind, real=True):
        if board is not None:
            return pipeline.plan_on_board(folder, board, weights=False)[1].fit.as_dict()
        return pipeline.plan(folder, weights=False).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--board", metavar="TARGET", help="write the memory plan for a board instead")
    arguments = parser.parse_args()
    place = PLANS if arguments.board is None else FITS
    place.mkdir(parents=True, exist_ok=True)
    for kind in arguments.kinds:
        begin = time.perf_counter()
        document = plan(kind, arguments.board)
        name = kind if arguments.board is None else f"{kind}-{arguments.board}"
        (place / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - begin
        said = document.get("verdict") or document["parameters"]
        print(f"{kind}: {said}; {seconds:.0f} s, {peak:.0f} MB at most", flush=True)


if __name__ == "__main__":
    main()
