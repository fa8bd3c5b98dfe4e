"""The node over DDS, with ROS 2's names and types on the wire: rclpy is a double, the topics are real."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="pip install 'vlacompile[oracles]'")

from tests.ros.faulty_robot import CAMERA, S
from tests.ros.maps import CUP, PLATE, routed
from tests.ros.ros_types import NAMES, ON_THE_WIRE, CompressedImage, Image, ReportOutcome, SetInstruction, Trigger
from tests.ros.stepped_robot import BOWL_SUM, CUP_SUM
from tests.ros.stream import Stream
from vlart.recording.log import Log


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
    assert stream.call(Trigger).success
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


@pytest.fixture
def behind_a_router(pair_bundle, routes, tmp_path):
    text = routed(routes, tmp_path / "state")
    with Stream(pair_bundle, tmp_path, text=text, record=str(tmp_path / "run.vlog")).running() as it:
        yield it


def test_tasks_are_given_and_judged_over_the_wire(behind_a_router, tmp_path):
    """Every outcome that is of no task now is refused with four lines, and is in the diagnostics."""
    stream = behind_a_router
    accepted = stream.call(SetInstruction, text=PLATE)
    assert accepted.success and (accepted.task, accepted.backbone) == (1, "light")
    early = stream.call(ReportOutcome, task=1, success=True)
    assert not early.success and "no action of task 1" in early.message and early.message.count("\n") == 3
    stream.ticks(40)
    assert stream.said[-1] == BOWL_SUM
    other = stream.call(ReportOutcome, task=1, success=True, instruction=CUP)
    assert not other.success and "another instruction" in other.message and other.task == 1
    told = stream.call(ReportOutcome, task=1, success=True, instruction=PLATE)
    assert told.success and (told.task, told.backbone) == (2, "light")
    twice = stream.call(ReportOutcome, task=1, success=True)
    assert not twice.success and "task 1 is over" in twice.message and twice.task == 2
    heavy = stream.call(SetInstruction, text=CUP)
    assert (heavy.task, heavy.backbone) == (3, "heavy")
    late = stream.call(ReportOutcome, task=2, success=True)
    assert not late.success and "another instruction came" in late.message
    stream.ticks(40)
    assert stream.said[-1] == -CUP_SUM
    message, values = stream.diagnosed()["task"]
    assert values["outcomes received"] == "5" and values["outcomes refused"] == "4" and values["backbone"] == "heavy"
    assert message.startswith("4 outcomes were refused: task 2 is over")
    assert values["router state"] == "saved 1 times" and "none lost" in values["recording"]
    assert stream.call(Trigger).success and stream.diagnosed()["task"][1]["task"] == "4"
    stream.node.trigger("deactivate")
    stream.node.trigger("cleanup")
    kinds = [e.kind for e in Log(tmp_path / "run.vlog") if e.role == "router"]
    assert kinds == ["decision", "outcome", "decision", "decision", "decision"]
    assert (tmp_path / "state.0").is_file()


def test_an_instruction_over_the_wire_that_is_refused_changes_nothing(behind_a_router):
    stream = behind_a_router
    stream.ticks(30)
    for text in ("?", "put " * 200):
        answer = stream.call(SetInstruction, text=text)
        assert not answer.success and answer.message.count("\n") == 3 and (answer.task, answer.backbone) == (1, "light")
    stream.ticks(10)
    assert stream.said[-1] == BOWL_SUM and stream.call(ReportOutcome, task=1, success=False).success


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
    if hint is bool:
        return True
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


SRV = Path(__file__).parents[2] / "integrations/ros2/vlacompile_msgs/srv"


@pytest.mark.parametrize("of", [SetInstruction, ReportOutcome])
def test_the_services_are_those_of_their_files(of):
    """Behind the head of rmw_cyclonedds_cpp, byte by byte what rosbags makes of the .srv file."""
    typesys = pytest.importorskip("rosbags.typesys", reason="pip install 'vlacompile[oracles]'")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    halves = (SRV / f"{of.__name__}.srv").read_text().split("---\n")
    for kind, half, mine in zip(("Request", "Response"), halves, (of.Request, of.Response), strict=True):
        name = f"vlacompile_msgs/msg/{of.__name__}_{kind}"  # rosbags knows messages alone
        store.register(typesys.get_types_from_msg(half, name))
        message = filled(mine)
        members = {f.name: getattr(message, f.name) for f in fields(message) if f.name not in ON_THE_WIRE}
        expected = bytes(store.serialize_cdr(store.types[name](**members), name))
        assert message.serialize()[:4] == expected[:4] and message.serialize()[20:] == expected[4:]
        assert mine.__idl_typename__.replace(".", "::") == f"vlacompile_msgs::srv::dds_::{of.__name__}_{kind}_"
