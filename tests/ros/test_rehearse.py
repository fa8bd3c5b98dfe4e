"""A recorded bag before the controller, without ROS: what is printed, and every way to be wrong."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="pip install 'vlacompile[oracles]'")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore
from vlacompile_ros.rehearse import main, recorded

from tests.ros.maps import MAP, PLATE, routed
from tests.ros.messages import S
from tests.samples.robot_policy import HEIGHT, WIDTH
from vlart.files.yaml_lines import parse_yaml
from vlart.ros.mapping import topic_map

STORE = get_typestore(Stores.ROS2_HUMBLE)
BEGIN = 1_700_000_000 * S


def header(at: int):
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=at // S, nanosec=at % S)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="")


def frame(at: int, level: int):
    pixels = np.full(3 * HEIGHT * WIDTH, level, np.uint8)
    return STORE.types["sensor_msgs/msg/Image"](header=header(at), height=HEIGHT, width=WIDTH, encoding="rgb8",
                                                is_bigendian=0, step=3 * WIDTH, data=pixels)


def joints(at: int, names=("c", "b", "a")):
    none = np.zeros(0)
    return STORE.types["sensor_msgs/msg/JointState"](header=header(at), name=list(names), velocity=none, effort=none,
                                                     position=np.linspace(0.7, 0.5, len(names)))


@pytest.fixture
def bag(tmp_path):
    """make(name, camera=..., joints=...): two seconds of a robot; other names of topics leave the right ones out.
    pause_s: in its middle."""

    def make(name: str = "robot", camera: str = "/camera/image_raw", states: str = "/joint_states", pause_s: int = 0):
        with Writer(tmp_path / name, version=8) as writer:
            connections = {}
            for k in range(200):
                at = BEGIN + k * S // 100 + (pause_s * S if k >= 100 else 0)
                sent = [(states, joints(at, ("a", "b") if k == 50 else ("c", "b", "a")))]
                if k % 5 == 0:
                    sent.append((camera, frame(at, k)))
                for topic, message in sent:
                    kind = message.__msgtype__
                    if topic not in connections:
                        connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                    writer.write(connections[topic], at, STORE.serialize_cdr(message, kind))
        return tmp_path / name

    return make


@pytest.fixture
def rehearsed(telling_bundle, tmp_path, capsys):
    """run(bag, *arguments, text=...) -> (exit code, what was printed, errors)"""

    def run(bag, *arguments, text: str = MAP) -> tuple[int, str, str]:
        (tmp_path / "topics.yaml").write_text(text)
        code = main([str(telling_bundle.path), str(tmp_path / "topics.yaml"), str(bag), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_a_bag_is_played_to_the_controller(rehearsed, bag, tmp_path):
    code, said, err = rehearsed(bag(), "--actions", tmp_path / "acted")
    assert code == 0, err
    rows = {line.split()[0]: list(map(int, line.split()[1:])) for line in said.splitlines()[1:3]}
    for received, *what in rows.values():
        assert received == sum(what)
    assert rows["image"][0] == 40 and rows["state"][0] == 200 and rows["state"][3] == 1
    assert 'without the joint "c"' in said and max(map(len, said.splitlines())) <= 110
    with AnyReader([tmp_path / "acted"]) as reader:
        acted = [(at, reader.deserialize(data, c.msgtype).data) for c, at, data in reader.messages()]
    by_status = dict(part.split()[::-1] for part in re.search("actions  (.*)", said)[1].split(", "))
    assert sum(map(int, by_status.values())) == len(acted) > 30  # a chunk that comes a tick late: the safe action
    assert set(by_status) <= {"OK", "SAFE_ACTION"} and int(by_status["OK"]) > 30
    assert np.allclose(acted[0][1][3:], [23, 0.5, 0.6, 0.7], atol=1e-5)
    assert np.unique(np.diff([at for at, _ in acted])).tolist() == [S // 20]


def test_a_bag_of_which_nothing_comes_is_no_success(rehearsed, bag):
    """A joint that no message has: all of them are refused, and say why."""
    code, said, err = rehearsed(bag(), text=re.sub(r"joints: \[a\b", "joints: [elbow", MAP))
    assert code == 3 and "no action was published" in err and err.count("\n") == 4
    assert 'without the joint "elbow"' in said and "actions  none" in said


def test_a_topic_may_be_of_two_inputs(rehearsed, bag):
    """None of its messages is lost for either: the map names one input first, then the other."""
    again = "  state.again: {topic: /joint_states, type: sensor_msgs/msg/JointState, joints: [a]}\n"
    two = MAP.replace("  state:", again + "  state:")
    code, _, err = rehearsed(bag(), text=two)
    assert code == 3 and 'no input "state.again"' in err  # the policy has none, and the map was read
    topics = topic_map(parse_yaml(two, Path("two.yaml")))
    names = Counter(names for _, names, _ in recorded(bag("again"), topics))
    assert names == {("state.again", "state"): 200, ("image",): 40}


def test_ten_years_without_messages_take_no_ten_years(rehearsed, bag):
    """A clock that was set while the bag was recorded."""
    code, said, err = rehearsed(bag(pause_s=86_400 * 365 * 10))
    assert code == 0, err
    assert "s without messages were skipped" in said and "actions" in said


def test_what_the_router_chose_is_said(pair_bundle, routes, bag, tmp_path, capsys):
    (tmp_path / "topics.yaml").write_text(routed(routes, tmp_path / "state"))
    assert main([str(pair_bundle.path), str(tmp_path / "topics.yaml"), str(bag())]) == 0
    assert f'router   task 1, "{PLATE}": light' in capsys.readouterr().out
    assert not list(tmp_path.glob("state*"))  # a rehearsal has no outcomes


WRONG = {
    "no bag": ({}, MAP, "nowhere", "cannot be read"),
    "a topic that is missing": ({"camera": "/other"}, MAP, None, "has no /camera/image_raw"),
    "a topic of another type": ({}, MAP.replace("msg/Image}", "msg/CompressedImage}"), None,
                                "has no /camera/image_raw of sensor_msgs/msg/CompressedImage"),
    "a map with a fault": ({}, MAP.replace("rate_hz: 20", "rate_hz: fast"), None, "wrong type"),
}


def test_a_bag_without_topics(rehearsed, tmp_path):
    with Writer(tmp_path / "empty", version=8):
        pass
    code, _, err = rehearsed(tmp_path / "empty")
    assert code == 3 and "it has no topic" in err


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_in_four_lines(rehearsed, bag, wrong):
    names, text, place, what = WRONG[wrong]
    code, _, err = rehearsed(place or bag(**names), text=text)
    assert code == 3 and what in err and [line.split(":")[0].strip() for line in err.splitlines()] == [
        "error", "where", "why", "fix"], err


def test_actions_are_not_written_over(rehearsed, bag):
    recorded = bag()
    code, _, err = rehearsed(recorded, "--actions", recorded)
    assert code == 3 and "does not exist yet" in err
