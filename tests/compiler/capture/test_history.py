"""Histories end to end: only the newest frame is written and encoded, the actions are those of the stacked history."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import policies
from vlacompile.compiler.capture.export import capture
from vlacompile.compiler.capture.history import append, frames_of
from vlacompile.compiler.graph.program import execute
from vlacompile.compiler.passes.delay_frames import DelayFrames
from vlacompile.policy.policy import Policy, Source
from vlart.bundle.plan.binary import plan_bytes, read_plan
from vlart.bundle.plan.plan import Delay, History
from vlart.bundle.plan.text import parse_plan, plan_text
from vlart.errors import SourceError
from vlart.verify.frames import read_frames
from vlart.verify.replay import replay, verify

TICKS = 8


@pytest.fixture(scope="module")
def remember(tmp_path_factory, every_stage):
    policy = policies.remember()
    return policy, vc.build(policy, recipe=str(every_stage), out=tmp_path_factory.mktemp("history") / "a.vlab")


def observations(policy: Policy, count: int = TICKS) -> list[dict[str, torch.Tensor]]:
    """What a robot writes, one after the other; the task stays."""
    torch.manual_seed(3)
    tokens = policy.example_inputs["tokens"]
    return [{"tokens": tokens, "image": policies.picture(), "state": torch.randn(1, 9)} for _ in range(count)]


def originals(policy: Policy, seen: list[dict[str, torch.Tensor]], order=lambda stacked: stacked) -> list[np.ndarray]:
    """The original function on the history after each observation."""
    stacked, out = {}, []
    for inputs in seen:
        stacked = {n: append(stacked.get(n), inputs[n], s.history) for n, s in policy.sources.items() if s.history > 1}
        with torch.no_grad():
            out.append(policy.infer(**(inputs | {n: order(t) for n, t in stacked.items()}))["action"].numpy())
    return out


def write(session: vc.Session, inputs: dict[str, torch.Tensor]) -> None:
    for name, tensor in inputs.items():
        session.write(name, tensor)


def test_actions_of_a_sequence_are_the_originals(remember):
    policy, bundle = remember
    seen = observations(policy)
    with vc.Session(bundle.path) as session:
        for inputs, want in zip(seen, originals(policy, seen), strict=True):
            write(session, inputs)
            session.step()
            assert np.abs(session.read("action") - want).max() <= 1e-5
        assert session.stats().runs() == {"language": 1, "vision.image": TICKS, "state": TICKS, "fusion": TICKS}


@pytest.mark.parametrize("order", [lambda t: t.flip(1), lambda t: torch.cat([t[:, -1:]] * t.shape[1], 1)],
                         ids=["newest first", "not shifted"])
def test_another_history_is_another_action(remember, order):
    policy, bundle = remember
    seen = observations(policy)
    with vc.Session(bundle.path) as session:
        for inputs in seen:
            write(session, inputs)
            session.step()
        assert np.abs(session.read("action") - originals(policy, seen, order)[-1]).max() > 1e-2


def test_observing_between_replans(remember):
    """The encoder runs at every tick, the rest at every fourth; a new instruction applies to all remembered frames."""
    policy, bundle = remember
    seen = observations(policy)
    for inputs in seen[5:]:
        inputs["tokens"] = inputs["tokens"].flip(1) + 1
    want = originals(policy, seen)
    with vc.Session(bundle.path) as session:
        for k, inputs in enumerate(seen):
            write(session, inputs)
            session.step() if k % 4 == 3 else session.observe()
            if k % 4 == 3:
                assert np.abs(session.read("action") - want[k]).max() <= 1e-5
        assert session.stats().runs() == {"language": 2, "vision.image": TICKS, "state": TICKS, "fusion": 2}


def test_a_session_begins_again(remember):
    policy, bundle = remember
    seen = observations(policy)
    with vc.Session(bundle.path) as session:
        for episode in (seen[:4], seen[5:]):
            session.reset()
            for inputs, want in zip(episode, originals(policy, episode), strict=True):
                write(session, inputs)
                session.step()
                assert np.abs(session.read("action") - want).max() <= 1e-5


def test_frames_are_written_newest_only_and_verified(remember):
    _policy, bundle = remember
    frames = read_frames(bundle.path / "golden/golden.bin")
    assert len(frames) >= 5 and all(f.writes["image"].shape == (1, 32, 32, 3) for f in frames)
    report = verify(bundle.path)
    assert report.passed and {"vision.image.0@2", "action"} <= {v.value for v in report.values}
    swapped = [frames[0], frames[2], frames[1], *frames[3:]]  # each alone is right, their order is not
    assert not replay(bundle.path, swapped, ("action",)).passed


def test_plans_keep_delays(remember, tmp_path):
    _, bundle = remember
    plan = bundle.plan
    names = [v.name for v in plan.values]
    assert [(names[d.input], names[d.output]) for d in plan.delays] == [
        ("vision.image.0", "vision.image.0@1"), ("vision.image.0@1", "vision.image.0@2"),
        ("state.0", "state.0@1"), ("state.0@1", "state.0@2")]
    assert parse_plan(plan_text(plan)) == plan
    (tmp_path / "plan.bin").write_bytes(plan_bytes(plan))
    assert read_plan(tmp_path / "plan.bin") == plan


@pytest.mark.parametrize("damage", [
    lambda p: {"delays": (Delay(0, p.delays[0].output), *p.delays[1:])},
    lambda p: {"delays": p.delays[1:]},
    lambda p: {"delays": (*p.delays, p.delays[-1])},
    lambda p: {"delays": p.delays[::-1]},
    lambda p: {"histories": p.histories[1:]},
    lambda p: {"histories": (*p.histories, History(0, 1))},
    lambda p: {"stages": p.stages[::-1]},
], ids=["types", "missing", "twice", "order", "no history", "one frame", "read before"])
def test_plans_are_checked(remember, damage):
    plan = remember[1].plan
    plan.check()
    with pytest.raises(AssertionError):
        dataclasses.replace(plan, **damage(plan)).check()


def test_small_encoders_are_computed_again_for_every_frame():
    """A stage that feeds a delay runs for every observation: below `min_flops` the raw frame is kept."""
    policy = policies.remember()
    program = capture(policy)
    raw = DelayFrames(min_flops=10**9).run(program).program
    delayed = {n.args[0].name for n in raw.graph.nodes if n.op == "call_function" and n.name.startswith("delay")}
    assert {"image", "state"} <= delayed
    past, stacked = {}, {}
    for inputs in observations(policy, 5):
        stacked = {n: append(stacked.get(n), inputs[n], 3) for n in ("image", "state")}
        got = execute(raw, inputs, past=past)[0]["action"]
        with torch.no_grad():
            assert torch.allclose(got, policy.infer(**(inputs | stacked))["action"], atol=1e-6)


def test_what_depends_on_the_task_is_not_delayed():
    def observe(tokens, state):
        seen = [torch.relu(state[:, i]) * tokens for i in range(2)]
        return {"action": torch.cat([seen[0], torch.sin(seen[1])], 1)[:, None]}

    inputs = {"tokens": torch.randn(1, 4), "state": torch.randn(1, 2, 4)}
    policy = Policy("task", observe, {"tokens": Source("task"), "state": Source("observation", history=2)}, inputs)
    program = DelayFrames().run(capture(policy)).program
    (delayed,) = [n for n in program.graph.nodes if n.name.startswith("delay")]
    assert delayed.args[0].name == "state" or "relu" in delayed.args[0].name
    got = execute(program, {"tokens": inputs["tokens"], "state": inputs["state"][:, 1]},
                  past={delayed.name: inputs["state"][:, 0] if delayed.args[0].name == "state"
                        else torch.relu(inputs["state"][:, 0])})[0]["action"]
    assert torch.equal(got, observe(**inputs)["action"])


def test_frames_of_a_history_are_oldest_first():
    stacked = torch.arange(6.0).reshape(1, 3, 2)
    frames = frames_of({"x": Source("observation", history=3)}, {"x": stacked})
    assert [frames[n][0, 0].item() for n in ("x@2", "x@1", "x")] == [0, 2, 4]


@pytest.mark.parametrize("source", [lambda: Source("step", history=2), lambda: Source("observation", history=0)])
def test_histories_that_are_none_are_refused(source):
    with pytest.raises(SourceError, match="history"):
        source()


def test_a_history_has_its_length_in_dimension_one():
    with pytest.raises(SourceError, match="history of 2"):
        Policy("short", lambda x: {"action": x}, {"x": Source("observation", history=2)}, {"x": torch.ones(1, 3, 4)})


def test_inspect_shows_what_is_remembered(remember, capsys):
    from vlacompile.cli.main import main
    from vlart.bundle.plan.stage_rows import change_rows, kept_rows

    plan = remember[1].plan
    runs = {r["source"]: r["runs"] for r in change_rows(plan)}
    assert runs["state"] == ["state", "fusion"] and runs["image"] == ["vision.image", "fusion"]
    made = {r["value"]: r["computed_by"] for r in kept_rows(plan)}
    assert made["vision.image.0@2"] == "vision.image, 2 ago" and made["vision.image.0"] == "vision.image"
    assert main(["inspect", str(remember[1].path)]) == 0
    assert "observation, 3 frames kept" in capsys.readouterr().out
