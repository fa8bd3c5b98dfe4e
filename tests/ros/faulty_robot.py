"""A robot whose messages come late, in another order, twice, of the wrong size, from the future, without a time; and
whose camera stops. Every message says which one it is, so that an action tells what it was made of.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np

from tests.ros.ros_types import Header, Image, JointState, Time
from tests.samples.robot_policy import HEIGHT, ROW, WIDTH

S, MS = 1_000_000_000, 1_000_000
CAMERA, JOINTS = "/camera/image_raw", "/joint_states"
TICK = 50 * MS
DELAYED, LATE, TWICE, WRONG, AHEAD, UNSET = 0.04, 0.01, 0.03, 0.02, 0.005, 0.003  # shares of messages


def wrong_image(message: Image, kind: int) -> None:
    if kind == 0:
        message.data = message.data[:-1]
    elif kind == 1:
        message.height, message.data = HEIGHT // 2, message.data[: len(message.data) // 2]
    elif kind == 2:
        message.encoding = "bayer_rggb8"
    else:
        message.step -= 1


def wrong_joints(message: JointState, kind: int) -> None:
    if kind == 0:
        message.position = message.position[:-1]
    elif kind == 1:
        message.name = ["a", "b", "b"]
    elif kind == 2:
        message.name = ["a", "b", "d"]
    else:
        message.position = [float("nan"), *message.position[1:]]


class FaultyRobot:
    """now_ns: what its clock shows. sent: {topic: {fault or "right": messages}}."""

    def __init__(self, now_ns: int, seed: int = 0):
        self.now_ns = now_ns
        self.times: dict[str, list[int]] = {CAMERA: [], JOINTS: []}  # of message k
        self.sent = {CAMERA: Counter(), JOINTS: Counter()}
        self.camera_runs = True
        self._random = np.random.default_rng(seed)
        self._order = itertools.count()
        self._on_the_way: list[tuple[int, int, str, object]] = []

    def tick(self) -> Iterator[tuple[str, object]]:
        """What arrives within the next period, in order."""
        begin, self.now_ns = self.now_ns, self.now_ns + TICK
        if self.camera_runs:
            self._send(CAMERA, begin + int(self._random.integers(5 * MS, 45 * MS)))
        for k in range(5):
            self._send(JOINTS, begin + 10 * MS * k + int(self._random.integers(1, 9 * MS)))
        while self._on_the_way and self._on_the_way[0][0] <= self.now_ns:
            yield heapq.heappop(self._on_the_way)[2:]

    def jump(self, by_ns: int) -> None:
        """Of its clock, which stamps what follows. What is on the way keeps its stamp."""
        self.now_ns += by_ns
        self._on_the_way = [(at + by_ns, *rest) for at, *rest in self._on_the_way]

    def _send(self, topic: str, time_ns: int) -> None:
        fault = self._random.choice(
            ["delayed", "late", "twice", "wrong", "ahead", "unset", "right"],
            p=[DELAYED, LATE, TWICE, WRONG, AHEAD, UNSET, 1 - DELAYED - LATE - TWICE - WRONG - AHEAD - UNSET])
        arrives = time_ns + int(self._random.integers(MS, 4 * MS))
        message, number = self._message(topic, time_ns), len(self.times[topic])
        self.times[topic].append(time_ns)
        if fault == "delayed":
            arrives += int(self._random.integers(60 * MS, 380 * MS))
        elif fault == "late":
            arrives += int(self._random.integers(600 * MS, 1500 * MS))
        elif fault == "wrong":
            (wrong_image if topic == CAMERA else wrong_joints)(message, number % 4)
        elif fault in ("ahead", "unset"):
            stamped = 0 if fault == "unset" else time_ns + int(self._random.integers(1, 5)) * S
            message.header.stamp = Time(sec=stamped // S, nanosec=stamped % S)
        self._put(topic, arrives, message, fault)
        if fault == "twice":
            self._put(topic, arrives + int(self._random.integers(1, 100 * MS)), message, "again")

    def _put(self, topic: str, arrives: int, message: object, fault: str) -> None:
        heapq.heappush(self._on_the_way, (arrives, next(self._order), topic, message))
        self.sent[topic][fault] += 1

    def _message(self, topic: str, time_ns: int) -> Image | JointState:
        number = len(self.times[topic])
        header = Header(stamp=Time(sec=time_ns // S, nanosec=time_ns % S))
        if topic == JOINTS:
            return JointState(header=header, name=["c", "a", "b"], position=[0.0, float(number % 32768), 0.0])
        pixel = [number % 256, number // 256 % 256, 0]
        return Image(header=header, height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH,
                     data=pixel * (HEIGHT * WIDTH))

    def made_of(self, action: list[float]) -> tuple[int, int, int]:
        """(the frame's number, the joints' number modulo 32768, the row) of an action of the telling policy."""
        row = action[2]
        low, high = (round((x - row) * 256) for x in action[:2])
        return low + 256 * high, round(action[4] - row), round(row / ROW)
