"""In the environment of LeRobot 0.4.4: writes a checkpoint and what LeRobot 0.4.4 itself does with it.

python -m tests.environments.lerobot061.earlier FOLDER KIND SETTINGS SHAPES, the last two JSON: settings of the policy
and {noise source: shape}. Writes FOLDER/pretrained_model and FOLDER/actions.npy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from vlacompile.frontends.environments import ENVIRONMENTS

ROOT, SEEDS = Path(__file__).parents[3], range(3)


def drawn(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {n: (torch.rand if n == "noise.choices" else torch.randn)(s, generator=draw) for n, s in shapes.items()}


def ask(folder: Path, kind: str, settings: dict, shapes: dict[str, list[int]]) -> np.ndarray:
    """[seed, step, action] of the checkpoint that is then at folder/pretrained_model."""
    subprocess.run([ENVIRONMENTS["lerobot"].python, "-W", "ignore", "-m", __name__, folder, kind, json.dumps(settings),
                    json.dumps(shapes)], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return np.load(folder / "actions.npy")


def main(folder: Path, kind: str, settings: dict, shapes: dict[str, list[int]]) -> None:
    from tests.environments.lerobot.checkpoints import write
    from tests.environments.lerobot.parity import observation, original_actions

    policy = write(kind, folder / "pretrained_model", **settings)
    with torch.no_grad():
        actions = [original_actions(folder / "pretrained_model", policy, observation(policy, seed), drawn(shapes))
                   for seed in SEEDS]
    np.save(folder / "actions.npy", np.stack(actions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(json.loads, sys.argv[3:]))
