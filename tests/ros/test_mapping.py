"""The YAML file that maps topics to inputs: what it says, and that every fault is told with its line."""

from __future__ import annotations

import pytest

from tests.ros.maps import PICK, changed, parsed
from vlart.errors import ConfigError
from vlart.ros.mapping import read_topic_map


def test_a_map_says_what_the_file_says(tmp_path):
    (tmp_path / "robot.yaml").write_text(PICK)
    found = read_topic_map(tmp_path / "robot.yaml")
    assert found == parsed()
    assert list(found.observation) == ["image", "state"]
    assert found.observation["state"].joints[-1] == "grip" and found.synchronise.reference == "image"
    assert found.actions.rate_hz == 20 and found.instruction.running == "drop" and found.on_failure.resume == "reset"


def test_a_bag_needs_no_actions():
    assert parsed(PICK.partition("instruction:")[0]).actions is None


def test_names_with_dots_keep_their_lines():
    text = PICK.replace("  state:", "  observation.state:").replace("JointState", "JointStat")
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    assert refused.value.where == "robot.yaml, line 7" and "JointState" in refused.value.why


def test_two_inputs_may_have_one_topic():
    text = changed("  state:", "  grip:\n    topic: /joint_states\n    type: sensor_msgs/msg/JointState\n"
                   "    joints: [grip]\n  state:")
    assert {t.topic for n, t in parsed(text).observation.items() if n != "image"} == {"/joint_states"}


@pytest.mark.parametrize("name", ["a", "/a", "~/a", "/a_1/b__c/d2", "/" + "a" * 246])
def test_names_that_ros_takes(name):
    assert parsed(changed("/camera/image_raw", name)).observation["image"].topic == name


FAULTS = {
    "an unknown key": (changed("joints:", "joint:"), 8, "correct or remove"),
    "a key twice": (changed("  rate_hz: 20", "  rate_hz: 20\n  rate_hz: 30"), 19, "keep one"),
    "a missing key": (changed("  reference: image\n", "  within_ms: 10\n"), 9, "add reference"),
    "an unknown type": (changed("msg/Image", "msg/Imag"), 4, "choose one of"),
    "a wrong type of value": (changed("[j1", "[1"), 8, "give a string"),
    "a name that YAML reads as a boolean": (changed("grip]\nsyn", "on]\nsyn"), 8, "give a string"),
    "no joints": (changed("    joints: [j1, j2, j3, j4, j5, j6, grip]\n", ""), 5, "add joints"),
    "a joint twice": (changed("[j1, j2", "[j1, j1"), 8, "remove one"),
    "joints of an image": (changed("msg/Image", "msg/Image\n    joints: [a]"), 5, "remove joints"),
    "resizing joints": (changed("grip]\nsyn", "grip]\n    resize: bilinear\nsyn"), 9, "remove resize"),
    "an unknown resize": (changed("msg/Image", "msg/Image\n    resize: linear"), 5, "choose one of"),
    "a reference that is no input": (changed("reference: image", "reference: imag"), 10, "name one"),
    "a topic that is none": (changed("/camera/image_raw", "/camera image"), 3, "ros2 topic list"),
    "a rate of nothing": (changed("rate_hz: 20", "rate_hz: 0"), 18, "from 0.01"),
    "a rate that is no number": (changed("rate_hz: 20", "rate_hz: .nan"), 18, "from 0.01"),
    "a negative time": (changed("reference: image", "reference: image\n  wait_ms: -1"), 11, "at least 0"),
    "a trajectory without joints": (changed("  joints: [j1, j2, j3, j4, j5, j6, grip]\n  rate", "  rate"), 14,
                                    "add joints"),
    "numbers without a time": (PICK.replace("sensor_msgs/msg/JointState\n    joints: [j1, j2, j3, j4, j5, j6, grip]",
                                            "std_msgs/msg/Float64MultiArray"), 5, "stamp: arrival"),
    "a rate that is too low": (changed("rate_hz: 20", "rate_hz: 1.0e-30"), 18, "0.01"),
    "a number beyond floats": (changed("rate_hz: 20", "rate_hz: 1" + "0" * 400), 18, "308 digits"),
    "a topic with a digit first": (changed("/camera/image_raw", "/camera/2nd"), 3, "ros2 topic list"),
    "a tilde within": (changed("/camera/image_raw", "/camera/~/image"), 3, "ros2 topic list"),
    "a long topic": (changed("/camera/image_raw", "/" + "a" * 247), 3, "ros2 topic list"),
    "an input without a topic": (changed("    topic: /camera/image_raw\n", ""), 2, "add topic"),
    "an input twice": (changed("  state:", "  image:"), 5, "keep one"),
    "a topic of two types": (changed("/joint_states", "/camera/image_raw"), 7, "correct one"),
    "an input that is the instruction": (changed("/instruction", "/joint_states"), 12, "topic of the instruction"),
    "the node hears itself": (changed("/arm/joint_trajectory", "/joint_states"), 15, "controller listens"),
    "the node instructs itself": (changed("/arm/joint_trajectory", "/instruction"), 15, "controller listens"),
    "a safe action that is none": (PICK + "on_failure: {action: [.nan, 1]}\n", 19, "give the numbers"),
    "a long instruction": (changed("put the bowl", "a" * 4097), 13, "at most 4096"),
    "a negative seed": (PICK + "control: {seed: -1}\n", 19, "give such a number"),
    "a negative lead": (PICK + "control: {lead_ticks: -1}\n", 19, "give such a number"),
    "a thread per atom": (PICK + "control: {threads: 100000}\n", 19, "give such a number"),
    "a merge key": (changed("rate_hz: 20", "<<: {rate_hz: 20}"), 18, "correct that line"),
    "two documents": (PICK + "---\na: 1\n", 19, "correct that line"),
    "an alias": (changed("joints: [", "joints: &j [").replace("  joints: [j1, j2, j3, j4, j5, j6, grip]\n  rate",
                                                              "  joints: *j\n  rate"), 17, "the value itself"),
    "a tag": (changed("rate_hz: 20", "rate_hz: !!python/name:os.system x"), 18, "the value itself"),
    "no YAML": (changed("reference: image", "reference: [image"), 11, "correct that line"),
    "too deep": ("a: " + "[" * 40 + "]" * 40, 1, "settings"),
    "a table as key": (changed("  rate_hz: 20", "  ? [a]\n  : 1"), 18, "quotes"),
    "a list at the top": ("- a", None, "key: value"),
    "nothing": ("", None, "key: value"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line(fault):
    text, line, fix = FAULTS[fault]
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    assert refused.value.where == ("robot.yaml" if line is None else f"robot.yaml, line {line}"), refused.value
    assert fix in refused.value.fix, refused.value


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: " + b"x" * (1 << 18)])
def test_a_file_that_is_no_text_or_too_large(content, tmp_path):
    (tmp_path / "robot.yaml").write_bytes(content)
    for path in (tmp_path / "robot.yaml", tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError) as refused:
            read_topic_map(path)
        assert refused.value.where == str(path)
