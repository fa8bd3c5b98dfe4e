"""A map of topics that is right, and ways to change it."""

from __future__ import annotations

from pathlib import Path

from vlart.files.yaml_lines import parse_yaml
from vlart.ros.mapping import TopicMap, topic_map

PICK = """\
observation:
  image:
    topic: /camera/image_raw
    type: sensor_msgs/msg/Image
  state:
    topic: /joint_states
    type: sensor_msgs/msg/JointState
    joints: [j1, j2, j3, j4, j5, j6, grip]
synchronise:
  reference: image
instruction:
  topic: /instruction
  text: put the bowl on the plate
actions:
  topic: /arm/joint_trajectory
  type: trajectory_msgs/msg/JointTrajectory
  joints: [j1, j2, j3, j4, j5, j6, grip]
  rate_hz: 20
"""


def parsed(text: str = PICK) -> TopicMap:
    return topic_map(parse_yaml(text, Path("robot.yaml")))


def changed(old: str, new: str) -> str:
    return changed_in(PICK, old, new)


def changed_in(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


PLATE, CUP = "put the bowl on the plate", "put the cup on"

# of tests/samples/robot_policy.py
MAP = """\
observation:
  image: {topic: /camera/image_raw, type: sensor_msgs/msg/Image}
  state: {topic: /joint_states, type: sensor_msgs/msg/JointState, joints: [a, b, c]}
synchronise: {reference: image, within_ms: 30}
instruction: {topic: /instruction, text: put the bowl on the plate}
actions: {topic: /arm, type: std_msgs/msg/Float64MultiArray, rate_hz: 20}
"""


def routed(table: Path, state: Path | None = None) -> str:
    """MAP, behind a router."""
    return MAP + f"router: {{table: {table}" + (f", state: {state}" if state else "") + "}\n"
