"""Policies of several observations: ms per tick with every frame encoded once, and with all frames encoded at every
replan.

    python -m benchmarks.histories        (in the environment lerobot; minutes)

LeRobot's Diffusion Policy (n_obs_steps 2, a U-Net of medium size, 10 DDIM steps) and VQ-BeT (5, default size) on frames
of 96 x 96, random weights, one thread. Both bundles come from one checkpoint: "once" is the result of `vlacompile
build`; "all" is the same policy with its histories declared as plain sources [1,n,...], written stacked. They alternate
tick by tick; medians. Prints one line of JSON per policy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import time
from pathlib import Path

WORK = Path("build/bench/histories")
KINDS = {"diffusion": {"num_inference_steps": 10, "down_dims": (128, 256, 512)}, "vqbet": {}}


def measure(kind: str, ticks: int, every: int) -> dict:
    """every: ticks from one replan to the next; in between, "once" observes the frames that the next replan still
    reads, and "all" does nothing."""
    import torch

    import vlacompile as vc
    from benchmarks.checkpoints import stacked
    from tests.environments.lerobot.checkpoints import write
    from vlacompile.compiler.capture.history import append, newest_of
    from vlacompile.frontends.lerobot.read import read_policy
    from vlacompile.policy.policy import Source
    from vlacompile.policy.sample_inputs import golden_inputs

    torch.set_num_threads(1)
    folder = WORK / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(kind, folder / "pretrained_model", real=True, **KINDS[kind])
    policy = read_policy(folder / "pretrained_model")
    plain = {n: Source(s.update, s.clock) for n, s in policy.sources.items()}
    bundles = {"once": vc.build(policy, out=folder / "once.vlab"),
               "all": vc.build(dataclasses.replace(policy, sources=plain), out=folder / "all.vlab")}
    newest = newest_of(policy.sources, policy.example_inputs)
    written = [i for _, i in golden_inputs(dict(policy.sources), newest, 4, seed=3)][3:]
    written += [i for _, i in golden_inputs(dict(policy.sources), newest, len(newest) + 4 + ticks, seed=4)][-ticks:]
    inputs = {"once": written, "all": stacked(policy.sources, written, append)}
    frames = max(s.history for s in policy.sources.values())
    times: dict[str, dict[str, list[float]]] = {n: {"replan_ms": [], "observe_ms": []} for n in bundles}
    worst = 0.0
    with vc.Session(bundles["once"].path, threads=1) as once, vc.Session(bundles["all"].path, threads=1) as both:
        for tick in range(len(written)):
            for name, session in (("once", once), ("all", both)):
                begin = time.perf_counter()
                seen = -tick % every < frames if name == "once" else tick % every == 0
                if seen:
                    for source, tensor in inputs[name][tick].items():
                        session.write(source, tensor.contiguous().numpy())
                    session.step() if tick % every == 0 else session.observe()
                if seen:
                    kind_of = "observe_ms" if tick % every else "replan_ms"
                    times[name][kind_of].append((time.perf_counter() - begin) * 1e3)
            if tick % every == 0:
                worst = max(worst, float(abs(once.read("action") - both.read("action")).max()))

    def encoder(plan) -> float:
        return sum(s.flops for s in plan.stages if s.name.startswith("vision.")) / 1e9

    return {"kind": kind, "ticks": len(written) - 1, "replan_every": every, "frames": frames,
            "max_abs_difference": worst,
            "encoder_gflop": {n: encoder(b.plan) for n, b in bundles.items()},
            "all_gflop": {n: sum(s.flops * s.iterations for s in b.plan.stages) / 1e9 for n, b in bundles.items()},
            "median": {n: {k: statistics.median(v[1:]) for k, v in t.items() if len(v) > 1} for n, t in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="diffusion, vqbet (default: both)")
    parser.add_argument("--ticks", type=int, default=16)
    parser.add_argument("--every", type=int, default=1, help="ticks from one replan to the next (default: 1)")
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        print(json.dumps(measure(kind, arguments.ticks, arguments.every)), flush=True)


if __name__ == "__main__":
    main()
