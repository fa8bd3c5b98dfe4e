"""The layer of rclpy, on a double of rclpy: what it subscribes to, publishes and answers, and its transitions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace as Fields

import pytest

pytest.importorskip("cyclonedds", reason="pip install 'vlacompile[oracles]'")

from tests.ros.maps import MAP, routed
from tests.ros.messages import MS, S
from tests.ros.rclpy_double import (
    TAKEN,
    ClockType,
    Reliability,
    TransitionCallbackReturn,
    Transport,
    UnsupportedEventTypeError,
    running,
)
from tests.ros.ros_types import Float64MultiArray, Header, Image, JointState, JointTrajectory, String, Time
from tests.samples.robot_policy import HEIGHT, WIDTH
from vlart.recording.log import Log

TRAJECTORY = MAP.replace("type: std_msgs/msg/Float64MultiArray", "type: trajectory_msgs/msg/JointTrajectory, "
                         "joints: [a, b, c, d, e, f, g], frame: base, reach_ms: 70")


class Running:
    """A node and its world; time moves with `tick`."""

    def __init__(self, node, world):
        self.node, self.world, self.transport = node, world, world.transport

    def to(self, *transitions: str) -> None:
        for transition in transitions:
            assert self.node.trigger(transition) is TransitionCallbackReturn.SUCCESS, self.world.logged

    def see(self, level: int = 100) -> None:
        stamp = Time(sec=self.world.now_ns // S, nanosec=self.world.now_ns % S)
        self.transport.send("/joint_states", JointState(header=Header(stamp=stamp), name=["c", "b", "a"],
                                                        position=[0.7, 0.6, 0.5]))
        self.transport.send("/camera/image_raw", Image(
            header=Header(stamp=stamp), height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH,
            data=[level] * (3 * HEIGHT * WIDTH)), Reliability.BEST_EFFORT)

    def tick(self) -> list:
        """What was published, in 50 ms."""
        before = len(self.transport.published["/arm"])
        self.node.tick(ClockType.STEADY_TIME)
        self.world.pass_time(50 * MS)
        return self.transport.published["/arm"][before:]

    def first(self) -> list:
        """What was published first, ticks without anything apart: the worker needs some time."""
        until = time.monotonic() + 10
        while not (sent := self.tick()):
            assert time.monotonic() < until
            time.sleep(1e-3)
        return sent

    def statuses(self) -> dict:
        self.node.tick(ClockType.ROS_TIME)
        return {s.name: s for s in self.transport.published["/diagnostics"][-1].status}


@contextmanager
def node_of(bundle, folder, text: str = MAP, distribution: str = "jazzy", **parameters) -> Iterator[Running]:
    (folder / "robot.yaml").write_text(text)
    given = {"bundle": str(bundle.path), "topics": str(folder / "robot.yaml"), **parameters}
    with running(Transport(), distribution, **given) as (node_class, world):
        node = node_class()
        try:
            yield Running(node, world)
        finally:
            if node.state != "finalized":
                node.trigger("shutdown")


@pytest.mark.parametrize("distribution", ["humble", "jazzy"])
def test_from_messages_to_actions(telling_bundle, tmp_path, distribution):
    with node_of(telling_bundle, tmp_path, distribution=distribution) as it:
        it.to("configure", "activate")
        it.see()
        sent = it.first()
        assert [type(m) for m in sent] == [Float64MultiArray]
        assert sent[0].data == pytest.approx([100 / 256] * 3 + [23, .5, .6, .7], abs=1e-5)


def test_a_trajectory_has_a_point_to_reach_in_time(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path, TRAJECTORY) as it:
        it.to("configure", "activate")
        it.see()
        message, = it.first()
        assert type(message) is JointTrajectory and message.joint_names == list("abcdefg")
        assert message.header.frame_id == "base" and message.header.stamp == Time()  # it begins when it comes
        point, = message.points
        assert len(point.positions) == 7 and (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 70 * MS)


def test_only_an_active_node_publishes_and_a_cleaned_one_has_nothing(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path) as it:
        it.to("configure")
        it.see()
        assert it.tick() == [] and {s.name for s in it.transport.subscriptions} == {
            "/camera/image_raw", "/joint_states", "/instruction"}
        it.to("activate")
        assert it.tick() == []  # what was seen before belongs to no episode
        it.see()
        assert it.first()
        it.to("deactivate")
        it.see()
        assert it.tick() == []
        it.to("activate")
        it.see()
        assert it.first()
        it.to("deactivate", "cleanup")
        assert not it.transport.subscriptions and not it.node.entities("service") and not it.node.entities("timer")
        it.to("configure", "activate")
        it.see()
        assert it.first()


def test_inputs_are_taken_beside_the_control_loop(telling_bundle, tmp_path):
    """Each has a group of callbacks of its own; what changes the controller shares the node's."""
    text = MAP.replace("joints: [a, b, c]", "joints: [a, b, c], reliable: true")
    with node_of(telling_bundle, tmp_path, text) as it:
        it.to("configure", "activate")
        groups = [id(s.group) for s in it.transport.subscriptions]
        assert None not in groups and len({*groups}) == 3
        assert all(e.group is None for kind in ("timer", "service") for e in it.node.entities(kind))
        quality = {s.name: s.quality for s in it.transport.subscriptions}
        assert quality["/camera/image_raw"].reliability is Reliability.BEST_EFFORT
        assert quality["/joint_states"].reliability is Reliability.RELIABLE and quality["/joint_states"].depth == 100


def test_services(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path) as it:
        it.to("configure", "activate")
        it.see()
        it.first()
        assert it.node.call("/vlacompile/instruction", text="put the cup").success
        assert [round(m.data[3]) for m in it.tick()] == [23]  # the safe action: nothing was seen since
        refused = it.node.call("/vlacompile/instruction", text="put " * 50)
        assert not refused.success and "fix:" in refused.message
        assert it.node.call("/vlacompile/reset").success and it.tick() == []
        it.see()
        assert round(it.first()[0].data[3]) == 2 + 3 + 7


def test_an_instruction_by_its_topic(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path, MAP.replace(", text: put the bowl on the plate", "")) as it:
        it.to("configure", "activate")
        it.see()
        assert it.tick() == [] and "no instruction yet" in it.statuses()["vlacompile: policy"].message
        it.transport.send("/instruction", String(data="put the cup"))
        it.see()
        assert round(it.first()[0].data[3]) == 2 + 3 + 7


def test_diagnostics(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path) as it:
        it.to("configure", "activate")
        found = it.statuses()
        assert found["vlacompile: policy"].level == b"\1"
        assert found["vlacompile: input image"].message == "no message on /camera/image_raw: nobody publishes it"
        it.see()
        it.first()
        stamp = Time(sec=it.world.now_ns // S, nanosec=it.world.now_ns % S)
        it.transport.send("/joint_states", JointState(header=Header(stamp=stamp), name=["a"], position=[1.0]))
        for subscription in it.transport.subscriptions:
            if subscription.events is not None:
                subscription.events.message_lost(type("Event", (), {"total_count_change": 3}))
        found = it.statuses()
        assert found["vlacompile: policy"].level == b"\0" and found["vlacompile: input image"].level == b"\0"
        state = found["vlacompile: input state"]
        assert state.level == b"\1" and 'a JointState without the joint "b"' in state.message
        values = {v.key: v.value for v in state.values}
        assert values["received"] == "2" and values["refused: unfit"] == "1" and values["lost"] == "3"
        assert it.statuses()["vlacompile: input state"].level == b"\2"  # no message since


@pytest.mark.parametrize("what, changes", {
    "the bundle": {"bundle": "nowhere.vlab"}, "the map": {"topics": "nowhere.yaml"}, "no map": {"topics": ""},
    "a map with a fault": {"text": MAP.replace("/arm", "/a rm")}, "a map that does not fit": {
        "text": MAP.replace("  state:", "  stat:")}, "no signature": {"signers": "nobody"}}.items())
def test_what_cannot_be_configured_is_told_in_four_lines(telling_bundle, tmp_path, what, changes):
    given = {"bundle": str(telling_bundle.path), "text": MAP} | changes
    bundle, text = given.pop("bundle"), given.pop("text")
    with node_of(Fields(path=bundle), tmp_path, text, **given) as it:
        assert it.node.trigger("configure") is TransitionCallbackReturn.FAILURE and it.node.state == "unconfigured"
        level, said = it.world.logged[-1]
        assert level == "error" and [line.strip().partition(":")[0] for line in said.splitlines()[1:]] == [
            "where", "why", "fix"]
        assert not it.transport.subscriptions


def test_an_error_in_a_transition_is_told_and_releases_everything(telling_bundle, tmp_path, monkeypatch):
    with node_of(telling_bundle, tmp_path) as it:
        monkeypatch.setattr(it.node, "create_service", lambda *_: 1 / 0)
        assert it.node.trigger("configure") is TransitionCallbackReturn.ERROR and it.node.state == "unconfigured"
        assert "ZeroDivisionError" in it.world.logged[-1][1] and not it.transport.subscriptions
        monkeypatch.undo()
        it.to("configure")


def test_a_node_that_is_configured_anew_knows_nothing_of_before(telling_bundle, pair_bundle, routes, tmp_path):
    """With another map and another bundle; and a recording is not written over."""
    log = tmp_path / "run.vlog"
    with node_of(telling_bundle, tmp_path, record=str(log)) as it:
        it.to("configure", "activate")
        it.see()
        it.first()
        it.to("deactivate", "cleanup")
        assert len(list(Log(log))) > 5
        before = log.read_bytes()
        it.node.set("topics", str(tmp_path / "other.yaml"))
        it.node.set("bundle", str(pair_bundle.path))
        (tmp_path / "other.yaml").write_text(routed(routes, tmp_path / "state").replace("/joint_states", "/joints"))
        assert it.node.trigger("configure") is TransitionCallbackReturn.FAILURE
        assert "it exists" in it.world.logged[-1][1] and log.read_bytes() == before
        it.node.set("record", "")
        it.to("configure", "activate")
        assert {s.name for s in it.transport.subscriptions} == {"/camera/image_raw", "/joints", "/instruction"}
        status = it.statuses()["vlacompile: task"]
        values = {v.key: v.value for v in status.values}
        assert status.message == "task 1, by light" and values["outcomes received"] == "0" and "recording" not in values
        image = {v.key: v.value for v in it.statuses()["vlacompile: input image"].values}
        assert image["received"] == "0"


def test_an_instruction_and_an_outcome_that_are_refused_are_in_the_diagnostics(telling_bundle, tmp_path):
    with node_of(telling_bundle, tmp_path) as it:
        it.to("configure", "activate")
        it.transport.send("/instruction", String(data="put " * 50))
        refused = it.node.call("/vlacompile/outcome", task=1, success=True)
        lines = refused.message.splitlines()
        assert not refused.success and [x.strip().partition(":")[0] for x in lines[1:]] == ["where", "why", "fix"]
        status = it.statuses()["vlacompile: task"]
        values = {v.key: v.value for v in status.values}
        assert status.level == b"\1" and values["instructions refused"] == values["outcomes refused"] == "1"
        assert "cannot be tokenized" in values["last instruction refused"] and "no action" in values[
            "last outcome refused"]
        it.see()
        it.first()
        told = it.node.call("/vlacompile/outcome", task=1, success=False)
        assert told.success and told.message == "task 1: failure; 0 succeeded, 1 failed" and told.task == 2
        assert told.backbone == ""  # there is one policy


def test_a_middleware_without_events_of_losses(telling_bundle, tmp_path, monkeypatch):
    with node_of(telling_bundle, tmp_path) as it:
        create = it.node.create_subscription

        def without(*args, event_callbacks=None, **named):
            if event_callbacks is not None:
                raise UnsupportedEventTypeError
            return create(*args, **named)

        monkeypatch.setattr(it.node, "create_subscription", without)
        it.to("configure", "activate")
        it.see()
        assert it.first()


def test_its_names_are_none_of_rclpys(telling_bundle, tmp_path):
    """rclpy's classes keep what is theirs under names of one underscore, too."""
    with node_of(telling_bundle, tmp_path) as it:
        it.to("configure", "activate")
        own = {n for n in (*vars(type(it.node)), *vars(it.node)) if n.startswith("_") and not n.endswith("__")}
        assert len(own) > 10 and not own & TAKEN
