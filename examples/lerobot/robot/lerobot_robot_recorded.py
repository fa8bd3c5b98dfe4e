"""A robot as LeRobot documents them for packages of others: `lerobot_robot_*`, a configuration that is registered and a
class of its name. It gives recorded observations one after the other, and writes down what it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot

JOINT, CAMERA = "joint.", "camera."  # how the names of the file's arrays begin


@RobotConfig.register_subclass("recorded")
@dataclass(kw_only=True)
class RecordedRobotConfig(RobotConfig):
    """episode: .npz, of joints f32 [steps], cameras u8 [steps,H,W,3]. actions: how many it takes. sent: file, one line
    per action with the number of the observation that was given last."""

    episode: str
    actions: int
    sent: str


class RecordedRobot(Robot):
    config_class, name = RecordedRobotConfig, "recorded"

    def __init__(self, config: RecordedRobotConfig):
        super().__init__(config)
        with np.load(config.episode) as found:
            self.recorded = dict(found)
        self.config, self.place, self.cameras = config, -1, {}

    @property
    def observation_features(self) -> dict:
        return {n.removeprefix(JOINT).removeprefix(CAMERA): float if n.startswith(JOINT) else a.shape[1:]
                for n, a in self.recorded.items()}

    @property
    def action_features(self) -> dict:
        return {f"action_{i}.pos": float for i in range(self.config.actions)}

    @property
    def is_connected(self) -> bool:
        return True

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None: ...

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def disconnect(self) -> None: ...

    def get_observation(self) -> dict:
        self.place += 1
        return {n.removeprefix(JOINT).removeprefix(CAMERA): float(a[self.place % len(a)]) if n.startswith(JOINT)
                else a[self.place % len(a)] for n, a in self.recorded.items()}

    def send_action(self, action: dict) -> dict:
        with Path(self.config.sent).open("a", encoding="utf-8") as file:
            file.write(json.dumps([self.place, [float(v) for v in action.values()]]) + "\n")
        return action
