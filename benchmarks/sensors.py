"""Cost of the sensor checks: writing a camera frame f32 [1,3,224,224] and a state of 14 numbers with libvlart's checks
on and off; and a step on denormal numbers.

    python -m benchmarks.sensors [--record]

Writes build/bench/ (--record: profiles/host/) sensors.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vlacompile as vc
from vlacompile.profile import machine
from vlart.runtime.option_checks import ACCEPT

RECIPE = """name = "guarded"
description = "every check there is"
[safety]
max_age_ms = 1000
[[safety.source]]
name = "*"
low = [-10]
high = [10]
outside = "refuse"
"""
ROUNDS, WRITES = 15, 40


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(14, 512)
        self.act = nn.Linear(512, 28)

    def forward(self, frame, state):
        return {"action": self.act(self.mix(state)).reshape(1, 2, 14) + frame.mean()}


def write_us(path: Path, name: str, frames: list[np.ndarray], accept: tuple[str, ...]) -> float:
    """Median latency in us of a write that changes the content, including Python's call overhead."""
    taken = []
    with vc.Session(path, accept=accept) as session:
        for i in range(WRITES):
            began = time.perf_counter_ns()
            session.write(name, frames[i % len(frames)])
            taken.append((time.perf_counter_ns() - began) / 1e3)
    return statistics.median(taken)


def step_us(path: Path, number: float, accept: tuple[str, ...]) -> float:
    taken = []
    with vc.Session(path, threads=1, accept=accept) as session:
        session.write("frame", np.zeros((1, 3, 224, 224), np.float32))
        for i in range(WRITES):
            session.write("state", np.full((1, 14), number * (1 + i % 5), np.float32))
            session.step()
            taken.append(session.stats().last_step_us)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="save the figures to profiles/host")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    example = {"frame": torch.rand(1, 3, 224, 224), "state": torch.rand(1, 14)}
    policy = vc.Policy("mean", Mean().eval(), {n: vc.Source("observation") for n in example}, example)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "guarded.toml"
        recipe.write_text(RECIPE)
        plain = vc.build(policy, out=Path(folder) / "plain.vlab").path
        guarded = vc.build(policy, recipe=str(recipe), out=Path(folder) / "guarded.vlab").path
        for _ in range(ROUNDS):  # interleaved
            for name, tensor in example.items():
                frames = [rng.random(tuple(tensor.shape), np.float32) for _ in range(4)]
                for kind, path, accept in (("off", plain, tuple(ACCEPT)), ("finite", plain, ()),
                                           ("guarded", guarded, ())):
                    found.setdefault(f"{name} {kind}", []).append(write_us(path, name, frames, accept))
            for kind, number, accept in (("normal", 0.5, ()), ("flushed", 1e-40, ()),
                                         ("denormal", 1e-40, ("denormal",))):
                found.setdefault(f"step {kind}", []).append(step_us(plain, number, accept))
    figures = {k: round(statistics.median(v), 2) for k, v in found.items()}
    for name, us in figures.items():
        print(f"{name:16} {us:9.2f} us")
    out = Path("profiles/host" if arguments.record else "build/bench") / "sensors.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"us": figures, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
