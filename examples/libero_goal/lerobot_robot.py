"""LeRobot's own asynchronous client with a relay as its robot: observations are sent by another process.

Runs in LeRobot's environment (`Driven` in a test, `main` as the process behind `engines.LerobotEngine`). The client is
the unmodified `lerobot.async_inference.robot_client.RobotClient` 0.4.4; only the robot below is our own.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO
from unittest import mock

import numpy as np

CAMERAS, SIZE, ACTIONS, CHUNK = ("agentview", "wrist"), 128, 7, 50
JOINTS = tuple(f"joint_{i}.pos" for i in range(9))
PATIENCE_S = 60.0


class Relay:
    """LeRobot's robot interface, which returns the observation given last."""

    observation_features = {**dict.fromkeys(JOINTS, float), **dict.fromkeys(CAMERAS, (SIZE, SIZE, 3))}
    action_features = {f"action_{i}": float for i in range(ACTIONS)}

    def __init__(self) -> None:
        self.observation: dict = {}
        self.actions: list[list[float]] = []

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def get_observation(self) -> dict:
        return dict(self.observation)

    def send_action(self, action: dict) -> dict:
        self.actions.append(list(action.values()))
        return action


class Driven:
    """act(images, state, task) -> actions f32 [50,7], as LeRobot's client passed them to the robot."""

    def __init__(self, module, address: str):
        """module: lerobot.async_inference.robot_client."""
        from lerobot.async_inference.configs import RobotClientConfig

        self.robot = Relay()
        config = RobotClientConfig(policy_type="act", pretrained_name_or_path="the served bundle", robot=mock.Mock(),
                                   actions_per_chunk=CHUNK, server_address=address, fps=200, chunk_size_threshold=0.0,
                                   aggregate_fn_name="latest_only")
        with mock.patch.object(module, "make_robot_from_config", lambda _: self.robot):
            self.client = module.RobotClient(config)
        if not self.client.start():
            raise SystemExit(f"no server answers at {address}")
        self.receiver = threading.Thread(target=self.client.receive_actions, daemon=True)
        self.receiver.start()
        self.client.start_barrier.wait()

    def act(self, images: dict[str, np.ndarray], state: np.ndarray, task: str) -> np.ndarray:
        self.robot.observation = {**dict(zip(JOINTS, map(float, state), strict=True)), **images}
        self.robot.actions.clear()
        self.client.latest_action = -1  # request a new chunk for every observation
        self.client.control_loop_observation(task)
        end = time.monotonic() + PATIENCE_S
        while not self.client.actions_available():
            if time.monotonic() > end:
                raise SystemExit("no actions came")
            time.sleep(0.001)
        while self.client.actions_available():
            self.client.control_loop_action()
        return np.array(self.robot.actions, np.float32)

    def close(self) -> None:
        self.client.stop()
        self.receiver.join(10)


@contextlib.contextmanager
def client_module() -> Iterator:
    """lerobot.async_inference.robot_client; the camera drivers that it imports may be missing. It logs to ./logs."""
    from vlacompile.frontends.lerobot import importing

    names = (*importing.NOT_CALLED, "cv2", "pyrealsense2")
    with mock.patch.object(importing, "NOT_CALLED", names), importing.lerobot_importable():
        import lerobot.async_inference.robot_client as module

        yield module


def send(stream: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, np.ndarray]:
    """Raises EOFError if the other end has closed the stream."""
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError("LeRobot's client ended")
    with np.load(io.BytesIO(stream.read(struct.unpack("<Q", head)[0])), allow_pickle=False) as data:
        return dict(data)


def main() -> None:
    """HOST:PORT as the argument; observations on stdin, chunks on stdout, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # LeRobot's output goes to stderr; stdout is for chunks
    with client_module() as module:
        driven = Driven(module, sys.argv[1])
        with contextlib.suppress(EOFError):
            while True:
                asked = receive(sys.stdin.buffer)
                images = {c: asked[c] for c in CAMERAS}
                send(answers, {"actions": driven.act(images, asked["state"], str(asked["task"]))})
        driven.close()
