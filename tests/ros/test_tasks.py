"""What is carried out, by which backbone, and which outcomes count: the node without ROS behind a router."""

from __future__ import annotations

from types import SimpleNamespace as Fields

import pytest
from vlacompile_ros.diagnostics import ERROR, OK, WARN, Reporter

from tests.ros.maps import CUP, MAP, PLATE, changed_in, routed
from tests.ros.stepped_robot import BOWL_SUM, CUP_SUM, SteppedRobot
from vlart.errors import ConfigError, RuntimeFailure, VlaError
from vlart.recording.log import Log
from vlart.runtime.recorder import Recorder
from vlart.serve.refusal import Refusal


@pytest.fixture
def robot(pair_bundle, telling_bundle, routes):
    made = []

    def make(text: str | None = None, alone: bool = False, **options) -> SteppedRobot:
        made.append(SteppedRobot(telling_bundle if alone else pair_bundle, text or routed(routes), **options))
        return made[-1]

    yield make
    for each in made:
        each.controller.close()


def saying(it: SteppedRobot, count: int = 4) -> list[int]:
    """Of the actions that a chunk covers: the sum of the instruction's ids, negative of heavy."""
    return [round(float(c.action[3])) for c in it.run(count) if c and c.status == "OK"]


def refused(it: SteppedRobot, *outcome) -> Refusal:
    before = it.controller.tasks.outcomes.copy()
    with pytest.raises(Refusal) as caught:
        it.controller.outcome(*outcome)
    after = it.controller.tasks.outcomes
    assert after.refused.total() == before.refused.total() + 1 and after.used == before.used
    assert after.received == after.used + after.refused.total()
    return caught.value


def test_the_router_chooses_for_every_instruction(robot):
    it = robot()
    assert set(saying(it)) == {BOWL_SUM} and it.controller.tasks.current.backbone == "light"
    it.controller.instruct(CUP)
    assert saying(it, 6)[-1] == -CUP_SUM and it.controller.tasks.current.backbone == "heavy"
    it.controller.instruct(PLATE)
    assert saying(it, 6)[-1] == BOWL_SUM
    assert it.controller.tasks.current.number == 3


def test_a_running_chunk_of_another_backbone_goes_on_where_that_was_declared(robot, routes):
    it = robot(changed_in(routed(routes), "plate}", "plate, running: keep}"))
    it.run(5)
    it.controller.instruct(CUP)
    found = it.run(4)
    assert [c.status for c in found] == ["OK"] * 4
    assert [round(float(c.action[3])) for c in found] in ([BOWL_SUM] + [-CUP_SUM] * 3, [-CUP_SUM] * 4)


def test_an_old_chunk_that_goes_on_is_no_action_of_the_new_task(robot, routes):
    it = robot(changed_in(routed(routes), "plate}", "plate, running: keep}"))
    it.run(5)
    it.controller.synchroniser.forget()  # of what was seen nothing waits
    it.controller.instruct(CUP)
    command = it.controller.tick(it.now, it.steady)
    assert command.status == "OK" and round(float(command.action[3])) == BOWL_SUM
    assert "no action of task 2" in refused(it, 2, True).what


def test_what_was_learnt_is_kept_and_decides(robot, routes, tmp_path):
    """In two files, as libvlart keeps it, for another process too."""
    it = robot(routed(routes, tmp_path / "state"))
    for _ in range(90):  # light fails from now on
        it.controller.tasks.current.acted = True
        it.controller.outcome(it.controller.tasks.current.number, it.controller.tasks.current.backbone == "heavy")
    assert it.controller.tasks.current.backbone == "heavy"
    assert sorted(p.name for p in tmp_path.glob("state*")) == ["state.0", "state.1"]
    it.controller.close()
    again = robot(routed(routes, tmp_path / "state"))
    assert again.controller.tasks.current.backbone == "heavy"
    assert again.controller.tasks.state_words() == "saved 90 times"
    assert robot().controller.tasks.current.backbone == "light"  # the control: without the state


def test_an_outcome_ends_its_task_and_the_next_one_is_decided_anew(robot):
    it = robot()
    it.run(5)
    decided = it.controller.tasks.current.decision
    assert it.controller.outcome(1, True, PLATE) == "task 1: success; 1 succeeded, 0 failed"
    task = it.controller.tasks.current
    assert task.number == 2 and task.instruction == PLATE and task.decision.sequence == decided.sequence + 1
    assert task.decision.alpha[0] == decided.alpha[0] + 1 and task.decision.beta == decided.beta
    assert it.tick() is None  # nothing of the last episode is held
    it.run(5)
    it.controller.outcome(2, False)
    assert (it.controller.tasks.succeeded, it.controller.tasks.failed) == (1, 1)


@pytest.mark.parametrize("alone", [False, True], ids=["routed", "one policy"])
def test_an_outcome_that_is_of_no_task_is_refused_and_changes_nothing(robot, alone):
    it = robot(changed_in(MAP, ", text: put the bowl on the plate", ""), alone=True) if alone else robot()
    if alone:
        assert "none began yet" in refused(it, 1, True).why and "there is no task now" in refused(it, 0, True).why
        it.controller.instruct(PLATE)
    assert "no action of task 1 was published" in refused(it, 1, True).what  # nothing was carried out
    it.run(5)
    belief = lambda: it.controller.tasks.current.decision
    before = belief()
    assert "another instruction" in refused(it, 1, True, CUP).what
    assert refused(it, 0, True).what == "an outcome without a task" and "task now is 1" in refused(it, 0, True).why
    assert "task 7 is not known" in refused(it, 7, True).what
    assert saying(it) and it.controller.tasks.current.number == 1 and belief() == before  # it goes on
    it.controller.outcome(1, True)
    assert "outcome was told: success" in refused(it, 1, True).why  # twice
    it.run(5)
    assert "outcome was told: success" in refused(it, 1, False).why  # and late
    it.controller.instruct(CUP)
    assert f'another instruction came: "{CUP}"' in refused(it, 2, True).why
    it.run(5)
    it.controller.reset()
    assert "service reset" in refused(it, 3, True).why
    assert (it.controller.tasks.succeeded, it.controller.tasks.failed) == (1, 0)
    it.run(5)
    it.controller.outcome(4, False)
    assert it.controller.tasks.failed == 1


def test_after_a_refused_instruction_the_outcome_is_the_last_tasks(robot):
    """A router waits for the outcome of its last decision: it is not asked about what a tokenizer refuses."""
    it = robot()
    it.run(5)
    before = it.controller.tasks.current.decision
    for text in ("put " * 50, "?!", "", "put " * 150):
        with pytest.raises(Refusal):
            it.controller.instruct(text)
    assert it.controller.tasks.current.number == 1 and set(saying(it)) == {BOWL_SUM}
    it.controller.outcome(1, False)
    assert it.controller.tasks.current.decision.beta[0] == before.beta[0] + 1


def test_between_deactivation_and_activation_there_is_no_task(robot):
    it = robot()
    it.controller.reset()  # activated: the first task has begun already
    assert it.controller.tasks.current.number == 1
    it.run(5)
    it.controller.end()
    assert it.controller.tasks.current is None and it.run(3) == [None] * 3
    assert "deactivated" in refused(it, 1, True).why
    it.controller.reset()
    assert it.controller.tasks.current.number == 2 and saying(it)


def test_a_state_that_cannot_be_saved_is_told_and_the_outcome_counts(robot, routes, tmp_path):
    it = robot(routed(routes, tmp_path / "there" / "state"))
    reporter = Reporter(it.controller)
    it.run(5)
    alpha = it.controller.tasks.current.decision.alpha[0]
    said = it.controller.outcome(1, True)  # the folder is not there
    assert "is not on disk" in said and it.controller.tasks.current.decision.alpha[0] == alpha + 1
    status = reporter.report(it.now, {})[1]
    assert status.level == ERROR and status.message.startswith("an outcome is not on disk: the router's state")
    (tmp_path / "there").mkdir()
    it.run(5)
    assert "on disk" not in it.controller.outcome(2, True)
    assert reporter.report(it.now, {})[1].level == OK
    it.controller.close()
    assert robot(routed(routes, tmp_path / "there/state")).controller.tasks.current.decision.alpha[0] == alpha + 2


def test_diagnostics_say_who_carries_out_what_and_why(robot):
    it = robot()
    reporter = Reporter(it.controller)
    it.controller.instruct(CUP)
    status = reporter.report(it.now, {})[1]
    assert (status.name, status.level, status.message) == ("task", OK, "task 2, by heavy")
    values = status.values
    assert values["backbone"] == "heavy" and values["instruction"] == CUP and values["evidence of"] == "task"
    assert values["decided by"] == "text, similarity 1.000" and values["router state"] == "saved 0 times"
    light, heavy = values["belief light"], values["belief heavy"]
    assert light.startswith("success 0.0") and heavy.startswith("success 0.9") and "good enough with 1.000" in heavy
    refused(it, 1, True)
    it.controller.instruct_message(Fields(data="?"))
    status = reporter.report(it.now, {})[1]
    assert status.level == WARN and status.message == (
        "1 instructions were refused: the instruction cannot be routed")
    assert status.values["outcomes refused"] == "1" and "task 1 is over" in status.values["last outcome refused"]
    assert reporter.report(it.now, {})[1].level == OK  # no new ones


def test_a_recording_has_decisions_and_outcomes(robot, tmp_path):
    recorder = Recorder(tmp_path / "run.vlog")
    it = robot(record=recorder)
    it.run(5)
    it.controller.outcome(1, True)
    it.controller.instruct(CUP)
    it.run(5)
    assert "recording" in Reporter(it.controller).report(it.now, {})[1].values
    it.controller.close()
    assert recorder.info().complete
    log = Log(tmp_path / "run.vlog")
    events = [e for e in log if e.role == "router"]
    assert [e.kind for e in events] == ["decision", "outcome", "decision", "decision"]
    names = [b.name for b in log.plan.backbones]
    assert [names[int(e.number("backbone"))] for e in events if e.kind == "decision"] == ["light", "light", "heavy"]
    assert [e.text for e in events if e.kind == "decision"] == [PLATE, PLATE, CUP]
    assert {e.kind for e in log} >= {"source", "step", "pop", "select"}


MISFITS = {
    "a table that is not there": (lambda t: routed(t.with_name("none.bin")), RuntimeFailure, "cannot be read"),
    "a backbone beside": (lambda t: routed(t) + "control: {backbone: light}\n", ConfigError, "both there"),
    "no instruction": (lambda t: changed_in(routed(t), "instruction:", "#"), ConfigError, "no instruction"),
    "a state that is a folder": (lambda t: routed(t, t.parent / "folder"), RuntimeFailure, "state cannot be used"),
    "an unknown key": (lambda t: changed_in(routed(t), "table:", "tabel:"), ConfigError, "unknown key"),
    "no table": (lambda t: MAP + "router: {state: x}\n", ConfigError, "is missing"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_router_that_does_not_fit_is_refused(robot, routes, misfit):
    text, kind, what = MISFITS[misfit]
    (routes.parent / "folder.0").mkdir(exist_ok=True)
    with pytest.raises(kind, match=what):
        robot(text(routes))


def test_a_bundle_of_one_policy_is_not_routed(robot, routes):
    with pytest.raises(VlaError, match="not a backbone of the bundle"):
        robot(routed(routes), alone=True)


def test_paths_are_beside_the_map(pair_bundle, routes, tmp_path, monkeypatch):
    from vlart.ros.mapping import read_topic_map

    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/robot.yaml").write_text(MAP + "router: {table: t.bin, state: learnt/state}\n")
    monkeypatch.chdir(tmp_path)
    found = read_topic_map("maps/robot.yaml").router
    assert (found.table, found.state) == ("maps/t.bin", "maps/learnt/state")
