"""Bags of a robot with a camera, joints and an instruction, written by the libraries that record them: MCAP, and
rosbag2 with SQLite and with MCAP."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CAMERA, STATE = "observation.images.front", "observation.state"
JOINTS = ("lift", "pan", "grip")  # in the policy's order; the robot publishes them in another
MAP = f"""observation:
  {CAMERA}:
    topic: /camera
    type: sensor_msgs/msg/Image
  {STATE}:
    topic: /joints
    type: sensor_msgs/msg/JointState
    joints: [{", ".join(JOINTS)}]
synchronise:
  reference: {CAMERA}
  within_ms: 20
instruction:
  topic: /instruction
  text: wait
"""
SIDE, EVERY_NS, BEGIN_NS = (6, 8), 50_000_000, 1_700_000_000_000_000_000


def frames(count: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """[(time, image u8[H,W,3], joints by JOINTS)]"""
    rng = np.random.default_rng(0)
    return [(BEGIN_NS + k * EVERY_NS, rng.integers(0, 256, (*SIDE, 3), dtype=np.uint8), rng.standard_normal(3))
            for k in range(count)]


def write_rosbag2(path: Path, count: int = 40, storage: str = "sqlite3", joints: bool = True,
                  extra: str = "", jump_ns: tuple[int, ...] = (0,)) -> Path:
    """extra: a topic more, of joints. jump_ns: what is added to the clock in each part of the bag."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    of = store.types
    plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        kinds = {"/camera": "sensor_msgs/msg/Image", "/joints": "sensor_msgs/msg/JointState",
                 "/instruction": "std_msgs/msg/String"}
        kinds |= {extra: "sensor_msgs/msg/JointState"} if extra else {}
        there = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()
                 if joints or topic != "/joints"}

        def header(time_ns: int):
            stamp = of["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
            return of["std_msgs/msg/Header"](stamp, "")

        def write(topic: str, time_ns: int, message) -> None:
            writer.write(there[topic], time_ns, store.serialize_cdr(message, kinds[topic]))

        for k, (at, image, numbers) in enumerate(frames(count)):
            at += jump_ns[k * len(jump_ns) // count]
            if extra:
                write(extra, at, of["sensor_msgs/msg/JointState"](header(at), [], *[np.zeros(0)] * 3))
            if k == count // 2:
                write("/instruction", at - 1, of["std_msgs/msg/String"]("lift it"))
            if joints:
                write("/joints", at + 1_000_000, of["sensor_msgs/msg/JointState"](
                    header(at - 3_000_000), [JOINTS[i] for i in (2, 0, 1)], numbers[[2, 0, 1]], np.zeros(0),
                    np.zeros(0)))
            write("/camera", at + 2_000_000, of["sensor_msgs/msg/Image"](
                header(at), *SIDE, "bgr8", 0, SIDE[1] * 3, np.ascontiguousarray(image[..., ::-1]).ravel()))
    return path


def write_mcap(path: Path, count: int = 40) -> Path:
    """The file of a rosbag2 directory with MCAP, by itself."""
    folder = write_rosbag2(path.with_suffix(""), count, "mcap")
    next(folder.glob("*.mcap")).rename(path)
    return path
