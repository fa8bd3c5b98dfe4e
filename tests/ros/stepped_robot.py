"""A camera and joints before a controller, on a simulated clock."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from vlacompile_ros.controller import Controller

from tests.ros.maps import MAP
from tests.ros.messages import MS, S, image, joints
from tests.samples.robot_policy import HEIGHT, WIDTH
from vlart.files.yaml_lines import parse_yaml
from vlart.ros.mapping import topic_map

T0, STEADY0, PERIOD = 1_700_000_000 * S, 50 * S, 50 * MS
BOWL_SUM, CUP_SUM = 23, 17  # the sums of the token ids of the two instructions


class SteppedRobot:
    """A camera and joints before a controller, whose chunks are computed before the next tick."""

    def __init__(self, bundle, text: str = MAP, **options):
        located = parse_yaml(text, Path("robot.yaml"))
        self.controller = Controller(bundle.path, topic_map(located), located.where, tried=False, **options)
        self.now, self.steady = T0, STEADY0

    def see(self, level: int = 100, joint: float = 0.5, at: int | None = None) -> None:
        at = self.now if at is None else at
        self.controller.message("state", joints(at, c=joint + 0.2, a=joint, x=9.0, b=joint + 0.1), self.now)
        self.controller.message("image", image(at, np.full((HEIGHT, WIDTH, 3), level, np.uint8)), self.now)

    def tick(self):
        command = self.controller.tick(self.now, self.steady)
        until = time.monotonic() + 10
        while self.controller.info().busy:
            assert time.monotonic() < until
            time.sleep(1e-4)
        self.now, self.steady = self.now + PERIOD, self.steady + PERIOD
        return command

    def run(self, count: int, seeing: bool = True) -> list:
        found = []
        for _ in range(count):
            if seeing:
                self.see()
            found.append(self.tick())
        return found
