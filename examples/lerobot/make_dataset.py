"""In LeRobot's environment: a small dataset, written with LeRobot's own code, and an episode of it for the robot type
"recorded".

python make_dataset.py datasets/pick episode.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, EPISODES, STEPS, SIDE = 10, 4, 40, 96
JOINTS = [*(f"joint_{i}.pos" for i in range(1, 6)), "gripper.pos"]


def angles(episode: int, step: int) -> np.ndarray:
    """Of the joints [6], in degrees: a smooth motion, another in every episode."""
    phase = 2 * np.pi * step / STEPS + episode
    return (30 * np.sin(phase * (1 + np.arange(6) / 6))).astype(np.float32)


def frame(at: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3]: a bright square where the first two joints point to."""
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    row, column = (SIDE / 2 + at[:2]).astype(int)
    image[row - 8:row + 8, column - 8:column + 8] = (220, 180, 40)
    return image


def main(folder: str, recording: str) -> None:
    joints = {"dtype": "float32", "shape": (len(JOINTS),), "names": JOINTS}
    camera = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create("me/pick", fps=FPS, root=folder, use_videos=False, features={
        "observation.state": joints, "action": joints, "observation.images.front": camera})
    for episode in range(EPISODES):
        for step in range(STEPS):
            at = angles(episode, step)
            dataset.add_frame({"observation.state": at, "action": angles(episode, step + 1),
                               "observation.images.front": frame(at), "task": "pick up the square"})
        dataset.save_episode()
    dataset.finalize()
    first = np.stack([angles(0, step) for step in range(STEPS)])
    np.savez(Path(recording), **{"camera.front": np.stack([frame(at) for at in first])},
             **{f"joint.{n}": first[:, i] for i, n in enumerate(JOINTS)})
    print(f"{EPISODES} episodes of {STEPS} steps in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
