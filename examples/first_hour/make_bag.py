"""Stands for `ros2 bag record` on a robot: a few seconds of a camera, joints and an instruction, as a bag.

python make_bag.py BAG [SECONDS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

JOINTS = ["gripper", "elbow", "shoulder_lift", "shoulder_pan", "wrist_1", "wrist_2", "wrist_3"]  # the driver's order
SECOND, BEGIN = 1_000_000_000, 1_700_000_000_000_000_000
CAMERA_HZ, JOINTS_HZ, DELAY = 30, 100, 8_000_000


def main(bag: Path, seconds: float = 4.0) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types

    def header(at: int):
        stamp = types["builtin_interfaces/msg/Time"](sec=at // SECOND, nanosec=at % SECOND)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="")

    messages = []
    rng = np.random.default_rng(0)
    for k in range(int(seconds * CAMERA_HZ)):
        at = BEGIN + k * SECOND // CAMERA_HZ
        pixels = np.full((240, 320, 3), k % 256, np.uint8)
        if k == 50:
            pixels = pixels[:, :300]  # a frame of another size: resized, as the others
        messages.append((at + DELAY, "/camera/image_raw", types["sensor_msgs/msg/Image"](
            header=header(at), height=pixels.shape[0], width=pixels.shape[1], encoding="bgr8", is_bigendian=0,
            step=3 * pixels.shape[1], data=pixels.reshape(-1))))
    none = np.zeros(0)
    for k in range(int(seconds * JOINTS_HZ)):
        at = BEGIN + k * SECOND // JOINTS_HZ
        names = JOINTS if k != 120 else JOINTS[:-1]  # once without the last joint
        messages.append((at + DELAY // 8, "/joint_states", types["sensor_msgs/msg/JointState"](
            header=header(at), name=names, position=rng.normal(0, 0.1, len(names)), velocity=none, effort=none)))
    messages.append((BEGIN + 2 * SECOND, "/instruction", types["std_msgs/msg/String"](data="put the bowl on the bowl")))
    with Writer(bag, version=8) as writer:
        connections = {}
        for at, topic, message in sorted(messages, key=lambda m: m[0]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], at, store.serialize_cdr(message, kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
