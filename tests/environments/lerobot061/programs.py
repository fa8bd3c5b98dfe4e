"""LeRobot's own programs as processes of their own, with plugins that are found as installed ones are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.environments.lerobot061.site import ROOT


def run(site: Path, folder: Path, name: str, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
    """One of LeRobot's programs, or Python code in its place, in `folder`."""
    path = os.pathsep.join(map(str, (ROOT, site)))
    command = ["-m", "tests.environments.lerobot061.program", name, *arguments] if code is None else ["-c", code]
    return subprocess.run([sys.executable, "-W", "ignore", *command], cwd=folder, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": path, "HF_LEROBOT_HOME": str(folder)})


def on_the_robot(site: Path, folder: Path, recorded: dict[str, np.ndarray], joints: int, *arguments: str):
    """lerobot-rollout on a robot that replays what was recorded, as examples/lerobot/robot names it: (how it
    ended, what the robot was sent: [(place of the observation, action)]). joints: of the action, and of the state where
    nothing was recorded."""
    length = len(next(iter(recorded.values())))
    if not any(n.startswith("joint.") for n in recorded):
        recorded = {f"joint.joint_{i}.pos": np.zeros(length, np.float32) for i in range(joints)} | recorded
    np.savez(folder / "episode.npz", **recorded)
    done = run(site, folder, "lerobot_rollout", "--policy.type=vlab", "--policy.threads=1", "--robot.type=recorded",
               "--robot.episode=episode.npz", f"--robot.actions={joints}", "--robot.sent=sent.jsonl", "--fps=20",
               "--return_to_initial_position=false", "--play_sounds=false", *arguments)
    sent = folder / "sent.jsonl"
    return done, [json.loads(line) for line in sent.read_text().splitlines()] if sent.is_file() else []
