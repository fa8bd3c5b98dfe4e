"""Writes the sample bundles for the C tests: `write_samples.py DIR`, with the repository root on the path."""

from __future__ import annotations

import sys
from pathlib import Path

from sample_actions import samples
from sample_bundles import Flow, Recall, Reactive


def write_samples(root: Path) -> None:
    for name, policy in (("reactive", Reactive(low=(-1,) * 3, high=(1,) * 3)), ("flow", Flow(3))):
        for seed in range(2):
            inputs = policy.inputs(seed)
            policy.bundle.frame(f"seed {seed}", inputs, policy.reference(inputs))
        policy.bundle.write(root / name)
    for name, relay in samples().items():
        relay.bundle.write(root / name)
    recall = Recall()
    seen = [recall.inputs(seed) for seed in range(4)]
    for i, inputs in enumerate(seen):
        recall.bundle.frame(f"observation {i}", inputs, recall.reference(seen[: i + 1]))
    recall.bundle.write(root / "recall")


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
