"""The node over DDS, with ROS 2's names and types on the wire: rclpy is a double, the topics are real."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="pip install 'vlacompile[oracles]'")

from tests.ros.faulty_robot import CAMERA, S
from tests.ros.ros_types import NAMES, CompressedImage, Image
from tests.ros.stream import Stream


@pytest.fixture
def stream(telling_bundle, tmp_path):
    with Stream(telling_bundle, tmp_path).running() as it:
        yield it


def test_every_message_of_a_faulty_robot_is_accounted_for(stream):
    while stream.messages < 5000:
        stream.tick()
    stream.require_accounted()
    assert stream.actions > 500


@pytest.mark.full
def test_of_a_hundred_thousand_messages_none_is_lost(stream):
    while stream.messages < 100_000:
        stream.tick()
    stream.require_accounted()
    assert stream.actions > 10_000


def test_a_camera_stops_and_nothing_is_published_until_reset(stream):
    stream.ticks(40)
    stream.robot.camera_runs = False
    stream.ticks(40)
    message, values = stream.diagnosed()["policy"]
    assert message == "nothing is published: no complete observation" and values["state"] == "stopped"
    assert stream.diagnosed()["input image"][0].startswith(f"no message on {CAMERA}")
    stopped = stream.actions
    stream.robot.camera_runs = True
    stream.ticks(20)
    assert stream.actions == stopped
    assert stream.node.call("/vlacompile/reset").success
    stream.ticks(20)
    assert stream.actions > stopped and stream.diagnosed()["policy"][0] == "running"
    stream.require_accounted()


@pytest.mark.parametrize("by_s", [-10, 3600])
def test_the_clock_jumps(stream, by_s):
    """What was on the way was stamped before; what comes after is used."""
    stream.ticks(200)
    stream.robot.jump(by_s * S)
    stream.ticks(200)
    assert stream.diagnosed()["policy"][1]["clock jumps"] == "1"
    newest = stream.of_frames[-1]
    assert newest > 380 and stream.diagnosed()["policy"][0] == "running"
    stream.require_accounted(jumps=1)


def test_a_topic_of_another_type_is_told(stream):
    stream.robot.camera_runs = False
    stream.side.close(CAMERA, Image)
    stream.side.writer(CAMERA, CompressedImage).write(CompressedImage(format="jpeg"))
    stream.ticks(5)
    assert stream.diagnosed()["input image"][0] == (
        f"no message on {CAMERA}: it is published as sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image")


def filled(of: type) -> object:
    """A message with a number, a text or two elements in every member."""
    message = of()
    for k, (name, hint) in enumerate(of.__annotations__.items()):
        setattr(message, name, _some(hint, k + 1))
    return message


def _some(hint: object, k: int) -> object:
    if is_dataclass(hint):
        return filled(hint)
    if hint is str:
        return "abcdefgh"[:k]
    if "sequence" in str(hint):
        return [_some(hint.__metadata__[0].subtype, k + i) for i in range(2)]
    return k + 0.5 if "float" in str(hint) else k


def theirs(message: object, store) -> object:
    """The same in rosbags' classes."""
    of = store.types[NAMES[type(message)]]
    values = {}
    for field in fields(message):
        value = getattr(message, field.name)
        if is_dataclass(value):
            value = theirs(value, store)
        elif isinstance(value, list):
            inside = field.type.__metadata__[0].subtype
            value = ([theirs(v, store) for v in value] if is_dataclass(inside) else value if inside is str
                     else np.asarray(value, np.float64 if "float" in str(inside) else np.uint8))
        values[field.name] = value
    return of(**values)


@pytest.mark.parametrize("of", NAMES, ids=NAMES.get)
def test_the_types_are_those_of_ros(of):
    """Byte by byte those of rosbags' serialiser, whose definitions are ROS 2's."""
    typesys = pytest.importorskip("rosbags.typesys", reason="pip install 'vlacompile[oracles]'")
    for distribution in (typesys.Stores.ROS2_HUMBLE, typesys.Stores.ROS2_JAZZY):
        store, message = typesys.get_typestore(distribution), filled(of)
        assert message.serialize() == bytes(store.serialize_cdr(theirs(message, store), NAMES[of]))
    assert of.__idl_typename__.replace(".", "::") == NAMES[of].replace("/msg/", "::msg::dds_::") + "_"
