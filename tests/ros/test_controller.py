"""The node without ROS: what is published when, on a simulated clock."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace as Fields

import numpy as np
import pytest
from vlacompile_ros.controller import FAILING, RUNNING, STOPPED, WAITING, Controller
from vlacompile_ros.diagnostics import Reporter

from tests.ros.maps import CUP, MAP, PLATE
from tests.ros.messages import MS, S, image
from tests.ros.stepped_robot import BOWL_SUM, CUP_SUM, PERIOD, STEADY0, T0, SteppedRobot
from tests.samples.robot_policy import ROW
from vlart.errors import ConfigError, VlaError
from vlart.files.yaml_lines import parse_yaml
from vlart.ros.mapping import Control, topic_map
from vlart.ros.synchronise import MOST_KEPT
from vlart.runtime.async_session import AsyncSession
from vlart.serve.refusal import Refusal


@pytest.fixture
def robot(telling_bundle):
    made = []

    def make(text: str = MAP, **options) -> SteppedRobot:
        made.append(SteppedRobot(telling_bundle, text, **options))
        return made[-1]

    yield make
    for each in made:
        each.controller.close()


def failing(rules: str) -> str:
    return MAP + f"on_failure: {{{rules}}}\n"


def test_an_action_says_which_observation_it_was_made_of(robot):
    it = robot()
    assert it.tick() is None and it.controller.state == WAITING  # nothing was seen
    it.see(level=64, joint=0.25)
    seen = it.now
    commands = [it.tick()]
    if commands == [None]:  # being computed
        commands = [it.tick()]
    commands += it.run(7, seeing=False)
    for row, command in enumerate(commands):
        assert command.status == "OK" and (command.observation_ns, command.row) == (seen, row)
        assert np.allclose(command.action, np.array([.25, .25, .25, BOWL_SUM, .25, .35, .45]) + row * ROW, atol=1e-5)
    assert it.controller.state == RUNNING


@pytest.mark.parametrize("safe, published", [
    ("safe: hold", "last"), ("safe: zero", [0.0] * 7), ("action: [1, 2, 3, 4, 5, 6, 7]", [1, 2, 3, 4, 5, 6, 7]),
    ("safe: silent", None)])
def test_when_the_camera_stops_the_robot_does_what_was_declared(robot, safe, published):
    it = robot(failing(f"{safe}, stop_after_ms: 200"))
    it.run(20)
    last = [c for c in it.run(8, seeing=False) if c][-1]
    while last.status == "OK":
        before, last = last, it.tick()
        if last is None:
            break
    assert it.controller.state == FAILING
    if published is None:
        assert last is None
    else:
        assert last.status == "SAFE_ACTION"
        assert np.allclose(last.action, before.action if published == "last" else published)
    found = it.run(4, seeing=False)
    assert [c is None for c in found] == [published is None] * 3 + [True]  # 200 ms after the first of them
    assert it.controller.state == STOPPED and it.run(20) == [None] * 20
    it.controller.reset()
    assert [c.status for c in it.run(5)[2:]] == ["OK"] * 3 and it.controller.state == RUNNING


def test_publishing_begins_again_by_itself_where_that_was_declared(robot):
    it = robot(failing("stop_after_ms: 0, resume: observation"))
    it.run(20)
    it.run(24, seeing=False)
    assert it.controller.state == STOPPED
    assert it.run(6)[-1].status == "OK" and it.controller.state == RUNNING


def test_another_instruction_ends_what_is_executed(robot):
    it = robot()
    it.run(5)
    assert it.controller.instruct("put the bowl on the plate") is False  # it is the instruction already
    assert it.controller.instruct("put the cup on") is True
    following = [c for c in it.run(5) if c.status == "OK"]  # the safe action before
    assert len(following) >= 4 and following[0].row == 0
    assert [round(float(c.action[3])) for c in following] == [CUP_SUM] * len(following)


def test_a_running_chunk_goes_on_where_that_was_declared(robot):
    it = robot(MAP.replace("plate}", "plate, running: keep}"))
    it.run(5)
    it.controller.instruct("put the cup on")
    found = it.run(4)
    assert [c.status for c in found] == ["OK"] * 4
    assert [round(float(c.action[3])) for c in found][1:] == [CUP_SUM] * 3


def test_an_instruction_that_is_refused_changes_nothing(robot):
    it = robot(MAP.replace(", text: put the bowl on the plate", ""))
    assert it.run(3) == [None] * 3 and it.controller.lacks_instruction()
    with pytest.raises(Refusal):
        it.controller.instruct("put " * 50)
    for message in (Fields(data="put " * 50), Fields(data=3), Fields()):
        it.controller.instruct_message(message)
    assert it.controller.instruction is None
    it.controller.instruct_message(Fields(data="put the cup"))
    it.controller.instruct_message(Fields(data="put the cup"))
    account = it.controller.accounts()["instruction"]
    assert (account.received, account.used, account.superseded, account.refused) == (5, 1, 1, {"unfit": 3})
    assert round(float(it.run(4)[-1].action[3])) == 2 + 3 + 7


def test_a_frame_that_no_camera_has_is_refused_and_the_loop_goes_on(robot):
    it = robot(MAP.replace("msg/Image}", "msg/Image, resize: bilinear}"))
    it.run(5)
    assert it.controller.message("image", image(it.now, np.zeros((1, 16385, 3), np.uint8)), it.now) == "unfit"
    assert "16385 x 1" in it.controller.accounts()["image"].last_refusal
    assert [c.status for c in it.run(5)] == ["OK"] * 5


@pytest.mark.parametrize("stamp", [1, 2 ** 31 * S - 1, T0 + 10 * S, T0 - 10 * S, -S, 0])
def test_a_stamp_of_any_kind_is_refused_and_the_loop_goes_on(robot, stamp):
    it = robot()
    it.run(5)
    before = it.controller.accounts()
    it.see(at=stamp)
    after = it.controller.accounts()
    assert [after[n].refused.total() - before[n].refused.total() for n in ("image", "state")] == [1, 1]
    assert [c.status for c in it.run(5)] == ["OK"] * 5


@pytest.mark.parametrize("control, safe", [("", False), ("control: {lead_ticks: 1}\n", False),
                                           ("control: {lead_ticks: 0}\n", True)])
def test_a_chunk_is_asked_for_a_tick_ahead(robot, monkeypatch, control, safe):
    """However slow the machine is within a tick: the worker gets on after the action of the tick was taken. Asked for
    in the tick that needs it, the next chunk comes too late, and one action of each chunk is the safe one."""
    it = robot(MAP + control)
    it.run(2)
    request, pop, waiting = AsyncSession.request, AsyncSession.pop, []

    def asked(policy: AsyncSession) -> bool:
        waiting.append(True)
        return True

    def popped(policy: AsyncSession):
        found = pop(policy)
        if waiting:
            waiting.clear()
            request(policy)
        return found

    monkeypatch.setattr(AsyncSession, "request", asked)
    monkeypatch.setattr(AsyncSession, "pop", popped)
    statuses = [c.status for c in it.run(40)]
    assert ("SAFE_ACTION" in statuses) == safe and statuses.count("OK") >= 30


def test_who_is_asked_ahead():
    """A chunk of one action would be over before it came."""
    assert [Control().lead(n) for n in (0, 1, 2, 50)] == [0, 0, 1, 1]
    assert [Control(lead_ticks=n).lead(8) for n in (0, 3)] == [0, 3]


def test_an_instruction_ends_the_chunk_that_is_being_computed(robot):
    """It is of the other instruction: what is executed next is of the new one, whoever ends first."""
    it = robot()
    it.run(5)
    for k in range(30):
        it.see()
        it.controller.tick(it.now, it.steady)  # which asks for a chunk
        it.controller.instruct((CUP, PLATE)[k % 2])
        it.now, it.steady = it.now + PERIOD, it.steady + PERIOD
        said = [round(float(c.action[3])) for c in it.run(4) if c.status == "OK"]
        assert set(said) == {(CUP_SUM, BOWL_SUM)[k % 2]}


@pytest.mark.parametrize("text", ["поставь чашку", "把碗放在盘子上", "ضع الوعاء", "put \0 the cup", "\n\t", "🤖"])
def test_an_instruction_of_any_script_is_taken_or_refused_whole(robot, text):
    it = robot()
    it.run(5)
    try:
        assert it.controller.instruct(text) and it.controller.instruction == text
    except Refusal:
        assert it.controller.instruction == PLATE
    assert it.run(6)[-1].status == "OK"
    assert all(v.isprintable() for s in Reporter(it.controller).report(it.now, {}) for k, v in s.values.items()
               if k == "instruction")


@pytest.mark.parametrize("text", ["\ud800", "put the \udcff cup"])
def test_an_instruction_that_is_no_text_is_refused(robot, text):
    it = robot()
    with pytest.raises(Refusal):
        it.controller.instruct(text)
    it.controller.instruct_message(Fields(data=text))
    assert it.controller.instruction == PLATE and it.controller.accounts()["instruction"].refused == {"unfit": 1}


def test_a_storm_of_messages_leaves_the_loop_its_time(robot):
    """Of frames that are all right, twice as many as there may be; the bound is on what is kept."""
    it = robot()
    for k in range(2 * MOST_KEPT):
        it.see(at=it.now - 400 * MS + k * MS // 8)
    accounts = it.controller.accounts()
    assert all(accounts[n].waiting <= MOST_KEPT for n in ("image", "state"))
    assert it.run(4)[-1].status == "OK"


def test_a_policy_that_fails_for_good_is_told_and_nothing_is_published(robot):
    it = robot(failing("stop_after_ms: 200"))
    it.run(5)
    it.controller.close()
    found = [it.controller.tick(it.now + k * PERIOD, it.steady + k * PERIOD) for k in range(6)]
    assert found == [None] * 6 and it.controller.state == STOPPED and "closed" in it.controller.trouble


FLOW = """\
observation:
  image: {topic: /i, type: sensor_msgs/msg/Image}
  state: {topic: /s, type: std_msgs/msg/Float64MultiArray, stamp: arrival}
synchronise: {reference: state}
constants: {tokens: [1, 2, 3, 4, 5, 6]}
actions: {topic: /arm, type: std_msgs/msg/Float64MultiArray, rate_hz: 20}
"""


def test_noise_is_drawn_and_constants_are_written(flow_bundle):
    def first_action(seed: int) -> np.ndarray:
        located = parse_yaml(FLOW + f"control: {{noise: normal, seed: {seed}}}\n", Path("robot.yaml"))
        controller = Controller(flow_bundle.path, topic_map(located), located.where, tried=False)
        height, width = next(v.type.dims for v in flow_bundle.plan.values if v.name == "image")[1:3]
        controller.message("image", image(T0, np.zeros((height, width, 3), np.uint8)), T0)
        controller.message("state", Fields(data=[0.5] * 9), T0)
        until = time.monotonic() + 10
        while (command := controller.tick(T0, STEADY0)) is None:
            assert time.monotonic() < until
        controller.close()
        return command.action

    assert np.array_equal(first_action(1), first_action(1)) and not np.allclose(first_action(1), first_action(2))


FLOW_MISFITS = {
    "nothing draws the noise": ("", "nothing draws", "control: {threads: 1}"),
    "fewer constants": ("[1, 2, 3, 4, 5, 6]", "takes 6 numbers", "[1, 2]"),
    "a constant of another type": ("[1, 2, 3, 4, 5, 6]", "takes i64", "[1.5, 2, 3, 4, 5, 6]"),
    "a constant of no input": ("{tokens:", "no input without a topic", "{token:"),
    "a constant with a topic": ("{tokens:", "no input without a topic", "{state:"),
    "an instruction": ("synchronise:", "no instruction as text", "instruction: {text: put}\nsynchronise:"),
}


@pytest.mark.parametrize("misfit", FLOW_MISFITS)
def test_what_comes_by_no_topic_must_fit_the_bundle(flow_bundle, misfit):
    old, what, new = FLOW_MISFITS[misfit]
    text = FLOW.replace(old, new, 1) if old else FLOW + new
    located = parse_yaml(text + ("" if "control" in text else "control: {noise: normal}"), Path("robot.yaml"))
    with pytest.raises(ConfigError) as refused:
        Controller(flow_bundle.path, topic_map(located), located.where, tried=False)
    assert what in refused.value.what and refused.value.where.startswith("robot.yaml")


MISFITS = {
    "no actions": (MAP.partition("actions:")[0], "no actions"),
    "no instruction": (MAP.replace("instruction:", "#"), "no instruction"),
    "another count of joints": (MAP.replace("msg/Float64MultiArray,", "msg/JointTrajectory, joints: [a],").replace(
        "std_msgs/msg/Joint", "trajectory_msgs/msg/Joint"), "7 numbers"),
    "a safe action of another size": (failing("action: [1, 2]"), "safe action"),
    "a backbone that is not there": (MAP + "control: {backbone: left}\n", "backbone"),
    "an input that is not there": (MAP.replace("  state:", "  stat:"), 'no input "stat"'),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_map_that_does_not_fit_the_bundle_is_refused(robot, misfit):
    text, what = MISFITS[misfit]
    with pytest.raises(VlaError) as refused:
        robot(text)
    assert what in refused.value.what
