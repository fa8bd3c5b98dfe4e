"""A faulty robot before the node, over DDS: `Stream.tick` is a control period, and what must hold at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ros.faulty_robot import CAMERA, JOINTS, MS, TICK, FaultyRobot
from tests.ros.maps import MAP
from tests.ros.rclpy_double import ClockType, Reliability, TransitionCallbackReturn, running
from tests.ros.ros_types import Float64MultiArray, Image, JointState, ReportOutcome, SetInstruction, Trigger
from tests.ros.wire import DdsTransport, Side
from tests.samples.robot_policy import ROW

INPUTS = {"image": CAMERA, "state": JOINTS}
WITHIN = 30 * MS


class Stream:
    """In a DDS domain of its process, so that tests may run at the same time."""

    def __init__(self, bundle, folder: Path, seed: int = 0, text: str = MAP, **parameters: Any):
        (folder / "robot.yaml").write_text(text)
        self._parameters = {"bundle": str(bundle.path), "topics": str(folder / "robot.yaml"), **parameters}
        self._domain, self._seed = os.getpid() % 200, seed
        self.messages = self.actions = 0
        self.of_frames: list[int] = []  # of each action, the frame it was made of
        self.said: list[int] = []  # of each, the sum of the instruction's ids, negative of the backbone heavy

    @contextmanager
    def running(self) -> Iterator[Stream]:
        self.transport, self.side = DdsTransport(self._domain), Side(self._domain)
        with running(self.transport, **self._parameters) as (node_class, self.world):
            self.node = node_class()
            self.robot = FaultyRobot(self.world.now_ns, self._seed)
            for transition in ("configure", "activate"):
                assert self.node.trigger(transition) is TransitionCallbackReturn.SUCCESS, self.world.logged
            self._heard = self.side.reader("/arm", Float64MultiArray, Reliability.RELIABLE, 1000)
            for topic, of in ((CAMERA, Image), (JOINTS, JointState)):
                self.side.writer(topic, of)
            self._clients = {of: self.side.client(f"/vlacompile/{name}", of) for name, of in (
                ("reset", Trigger), ("instruction", SetInstruction), ("outcome", ReportOutcome))}
            self.side.require_matched()
            try:
                yield self
            finally:
                self.node.trigger("shutdown")

    def tick(self) -> list[Float64MultiArray]:
        """What the robot heard. Checks that every action is made of a frame and of joints that were near it in time,
        and that no frame follows one that is newer."""
        for topic, message in self.robot.tick():
            self.side.write(topic, message)
            self.messages += 1
        self.world.now_ns, self.world.steady_ns = self.robot.now_ns, self.world.steady_ns + TICK
        self.transport.spin(self.side.sent)
        published = len(self.transport.published["/arm"])
        self.node.tick(ClockType.STEADY_TIME)
        expected = len(self.transport.published["/arm"]) - published
        time.sleep(2e-4)  # the worker's turn
        heard, until = [], time.monotonic() + 10
        while len(heard) < expected:
            heard += self._heard.take(N=10)
            assert time.monotonic() < until
        for message in heard:
            self._check(message.data)
        self.actions += len(heard)
        return heard

    def call(self, service: Any, **request: Any) -> Any:
        """Over the wire. service: of ros_types."""
        return self._clients[service].call(self.transport.serve, **request)

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.tick()

    def _check(self, action: list[float]) -> None:
        frame, joints, row = self.robot.made_of(action)
        assert 0 <= row < 8
        begun = self.robot.times[CAMERA][frame]
        newest = len(self.robot.times[JOINTS])
        candidates = range(joints, newest, 32768)
        assert min(abs(self.robot.times[JOINTS][k] - begun) for k in candidates) <= WITHIN
        assert not self.of_frames or frame >= self.of_frames[-1]
        self.of_frames.append(frame)
        self.said.append(round(action[3] - row * ROW))

    def diagnosed(self) -> dict[str, tuple[str, dict[str, str]]]:
        """{status: (message, values)} of the newest diagnostics."""
        self.node.tick(ClockType.ROS_TIME)
        found = self.transport.published["/diagnostics"][-1].status
        return {s.name.partition(": ")[2]: (s.message, {v.key: v.value for v in s.values}) for s in found}

    def require_accounted(self, jumps: int = 0) -> dict[str, dict[str, int]]:
        """By what the node says in its diagnostics. Returns {topic: what became of its messages}."""
        found = {}
        for name, topic in INPUTS.items():
            values = self.diagnosed()[f"input {name}"][1]
            account = {k: int(v) for k, v in values.items() if v.isdigit()}
            refused = {k.removeprefix("refused: "): v for k, v in account.items() if k.startswith("refused: ")}
            arrived, sent = self.side.sent.get(topic, 0), self.robot.sent[topic]
            assert account["received"] == arrived, (name, values)
            assert account["used"] + account["superseded"] + sum(refused.values()) + account["waiting"] == arrived
            assert 0 <= account["waiting"] < 200 and account["lost"] == 0, values
            assert account["used"] and account["superseded"] and refused["duplicate"], values
            spare = sum(sent.values()) - arrived + 20 * jumps  # on the way, or stamped before the clock jumped
            for why, faults in (("unfit", ("wrong", "unset")), ("ahead", ("ahead",)), ("late", ("late",))):
                assert abs(sum(sent[f] for f in faults) - refused.get(why, 0)) <= spare, (why, values, sent)
            found[topic] = account
        return found
