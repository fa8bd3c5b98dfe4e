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
    "a rate of nothing": (changed("rate_hz: 20", "rate_hz: 0"), 18, "above 0"),
    "a rate that is no number": (changed("rate_hz: 20", "rate_hz: .nan"), 18, "above 0"),
    "a negative time": (changed("reference: image", "reference: image\n  wait_ms: -1"), 11, "at least 0"),
    "a trajectory without joints": (changed("  joints: [j1, j2, j3, j4, j5, j6, grip]\n  rate", "  rate"), 14,
                                    "add joints"),
    "numbers without a time": (PICK.replace("sensor_msgs/msg/JointState\n    joints: [j1, j2, j3, j4, j5, j6, grip]",
                                            "std_msgs/msg/Float64MultiArray"), 5, "stamp: arrival"),
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
