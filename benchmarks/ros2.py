"""The ROS 2 node over DDS before a faulty robot: `python -m benchmarks.ros2 [--messages 100000]`.

rclpy is a double (tests/ros/rclpy_double.py); messages go through Cyclone DDS with ROS 2's names and types. Writes
profiles/host/ros2.json: what became of every message.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import vlacompile as vc
from docs.figures import ROOT
from tests.ros.faulty_robot import CAMERA, JOINTS
from tests.ros.stream import Stream
from tests.samples.robot_policy import telling
from vlacompile.profile import machine
from vlart.files.atomic import write_file

FIGURES = "profiles/host/ros2.json"


def measure(messages: int, folder: Path) -> dict:
    bundle = vc.build(telling(), out=folder / "telling.vlab")
    stream = Stream(bundle, folder)
    begin = time.perf_counter()
    with stream.running():
        while stream.messages < messages:
            stream.tick()
        accounts = stream.require_accounted()
        policy = stream.diagnosed()["policy"][1]
    return {"messages": stream.messages, "seconds": round(time.perf_counter() - begin, 1), "accounts": accounts,
            "sent": {t: dict(stream.robot.sent[t]) for t in (CAMERA, JOINTS)}, "actions": stream.actions,
            "observations": int(policy["observations taken"]), "chunks": int(policy["chunks"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(parser.parse_args().messages, Path(scratch))
    found |= {"machine": machine.describe()}
    write_file(ROOT / FIGURES, (json.dumps(found, indent=1) + "\n").encode())
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
