"""Does the control loop keep its rate, whatever the slow lane does? `python -m benchmarks.lanes [--record]`.

The light LIBERO-Goal policy with the instruction and the third-person camera in a slow lane, and the wrist camera and
the state in the control loop. Three runs of the same control loop: the slow thread asleep, computing continuously, and
stalled for half a second in every step. Writes build/bench/lanes.json; with --record profiles/host/lanes.json. To be
recorded on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import vlacompile as vc
from examples.libero_goal.encoders import tokenize
from examples.libero_goal.policy import IMAGES, MASK, STATE, TOKENS, light
from vlacompile.profile import machine

ROOT = Path(__file__).resolve().parents[1]
FIGURES, RECORDED = ROOT / "build" / "bench" / "lanes.json", ROOT / "profiles" / "host" / "lanes.json"
STALL_S = 0.5


def build() -> Path:
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    recipe = FIGURES.with_name("lanes.toml")
    slow = [TOKENS, MASK, IMAGES["agentview"]]
    recipe.write_text((ROOT / "recipes" / "libero-goal.toml").read_text(encoding="utf-8")
                      + f'\n[[lane]]\nname = "slow"\nsources = {json.dumps(slow)}\nclock_hz = 8\n', encoding="utf-8")
    return vc.build(light(), recipe=str(recipe), out=FIGURES.with_name("lanes.vlab")).path


def run(bundle: Path, way: str, hz: float, seconds: float) -> dict:
    """Lateness and duration of each tick in us, and the steps of the slow lane."""
    rng, steps = np.random.default_rng(0), 0
    images = rng.integers(0, 256, (16, 1, 128, 128, 3), dtype=np.uint8)

    def observe(lane) -> None:
        nonlocal steps
        if way == "stalled":
            time.sleep(STALL_S)
        lane.write(IMAGES["agentview"], images[steps % 16])
        steps += 1

    with vc.Lanes(bundle, threads=1) as lanes:
        slow, control = lanes["slow"], lanes.control
        ids, mask = tokenize("light", "turn on the stove")
        slow.write(TOKENS, ids)
        slow.write(MASK, mask)
        slow.write(IMAGES["agentview"], images[0])
        slow.step()
        if way != "asleep":
            slow.start(observe)
        late, took, sequences, begin = [], [], set(), time.perf_counter()
        for k in range(int(seconds * hz)):
            time.sleep(max(0.0, begin + k / hz - time.perf_counter()))
            at = time.perf_counter()
            control.write(IMAGES["wrist"], images[k % 16])
            control.write(STATE, rng.standard_normal((1, 9)).astype(np.float32))
            control.step()
            done = time.perf_counter()
            late.append((at - begin - k / hz) * 1e6)
            took.append((done - at) * 1e6)
            sequences.add(lanes.followed("slow").sequence)
        failure = slow.failure
    if failure is not None:
        raise failure

    def spread(values) -> dict:
        return {"median": float(np.median(values)), "p99": float(np.percentile(values, 99)),
                "max": float(np.max(values))}

    return {"late_us": spread(late), "took_us": spread(took), "ticks": len(late),
            "missed": sum(x > 1e6 / hz for x in late),
            "slow_steps": steps, "sets_seen": len(sequences), "seconds": done - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    bundle = build()
    found = {way: run(bundle, way, arguments.hz, arguments.seconds) for way in ("asleep", "computing", "stalled")}
    figures = {"machine": machine.describe(), "hz": arguments.hz, "stall_s": STALL_S, "runs": found}
    path = RECORDED if arguments.record else FIGURES
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for way, row in found.items():
        print(f"{way:10} {row['ticks']} ticks at {arguments.hz:g} Hz, {row['missed']} a period late or more; took "
              f"median "
              f"{row['took_us']['median']:.0f} us, p99 {row['took_us']['p99']:.0f}, max {row['took_us']['max']:.0f}; "
              f"{row['slow_steps']} slow steps, {row['sets_seen']} sets seen")


if __name__ == "__main__":
    main()
