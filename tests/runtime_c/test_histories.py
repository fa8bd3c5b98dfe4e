"""Histories: delayed values over sequences of observations, and the rules of their records."""

from __future__ import annotations

import re

import numpy as np
import pytest
from plan_damage import change
from sample_bundles import Container, Recall
from vlart_ctypes import Failure, Policy, SourceInfo

from tests.runtime_c.running import TOLERANCE, assert_outputs, run_tool
from vlart import vocabulary


@pytest.fixture
def started(lib, engine, tmp_path):
    recall = Recall()
    with Policy(lib, engine.write(recall.bundle, tmp_path)).start(engine.library) as policy:
        yield recall, policy


def test_a_sequence_is_that_of_the_reference(started):
    recall, policy = started
    seen = []
    for seed in range(6):
        seen.append(recall.inputs(seed))
        policy.run(seen[-1])
        assert_outputs(policy, recall.reference(seen))
    assert policy.runs() == {"encode": 6, "act": 6}
    swapped = recall.reference([*seen[:-3], seen[-2], seen[-3], seen[-1]])["action"]  # another order is another action
    assert np.abs(policy.read("action") - swapped).max() > 0.1


def test_observing_advances_without_replanning(started):
    recall, policy = started
    seen = []
    for seed in range(9):
        seen.append(recall.inputs(seed))
        for name, array in seen[-1].items():
            policy.write(name, array)
        policy.tick("vlart_session_observe")
        if seed % 4 == 3:
            policy.step()
            assert_outputs(policy, recall.reference(seen))
        policy.tick("vlart_session_observe")  # nothing new: nothing happens
    assert policy.runs() == {"encode": 9, "act": 2}


def test_equal_bytes_are_another_observation(started):
    recall, policy = started
    seen = [recall.inputs(0), recall.inputs(1), recall.inputs(1), recall.inputs(1)]
    for k, inputs in enumerate(seen):
        policy.run(inputs)
        assert_outputs(policy, recall.reference(seen[: k + 1]))
    assert policy.runs() == {"encode": 2, "act": 4}


def test_histories_advance_together(started):
    """A history source that is not written keeps its content as its newest frame; a task source advances nothing."""
    recall, policy = started
    seen = [recall.inputs(0)]
    policy.run(seen[0])
    for names in (("state",), ("image",), ("image", "state"), ("state",)):
        seen.append({**seen[-1], **{n: recall.inputs(len(seen))[n] for n in names}})
        policy.run({n: seen[-1][n] for n in names})
        assert_outputs(policy, recall.reference(seen))
    gain = recall.inputs(50)["gain"]
    policy.run({"gain": gain})
    assert_outputs(policy, recall.reference([*seen[:-1], {**seen[-1], "gain": gain}]))
    policy.run({"image": seen[-1]["image"]})
    policy.write("state", recall.inputs(60)["state"])
    policy.write("state", recall.inputs(61)["state"])  # twice before a step: one observation
    policy.step()
    seen += [{**seen[-1], "gain": gain}, {**seen[-1], "gain": gain, "state": recall.inputs(61)["state"]}]
    assert_outputs(policy, recall.reference(seen))


def test_reset_forgets_and_invalidate_does_not(started):
    recall, policy = started
    first = [recall.inputs(seed) for seed in range(3)]
    for inputs in first:
        policy.run(inputs)
    policy.lib.check(policy.lib.c.vlart_session_invalidate(policy.session))
    first.append(recall.inputs(3))
    policy.run(first[-1])
    assert_outputs(policy, recall.reference(first))
    policy.lib.check(policy.lib.c.vlart_session_reset(policy.session))
    assert policy.queue().remaining == 0
    with pytest.raises(Failure, match="VALUE_UNSET"):
        policy.read("feature@1")
    with pytest.raises(Failure, match="SOURCE_UNSET.*image.*since the episode began"):
        policy.step()
    policy.run({k: first[-1][k] for k in ("image", "state")})  # equal bytes: the first observation; the gain goes on
    assert_outputs(policy, recall.reference(first[-1:]))
    policy.lib.check(policy.lib.c.vlart_session_reset(policy.session))
    again = [recall.inputs(seed) for seed in (7, 8)]
    for k, inputs in enumerate(again):
        policy.run(inputs)
        assert_outputs(policy, recall.reference(again[: k + 1]))


def test_unset_sources_are_named(started):
    recall, policy = started
    policy.write("image", recall.inputs()["image"])
    with pytest.raises(Failure, match="SOURCE_UNSET.*state"):
        policy.tick("vlart_session_observe")
    policy.write("state", recall.inputs()["state"])
    policy.tick("vlart_session_observe")  # the task's gain is not needed to observe
    np.testing.assert_allclose(policy.read("feature@2"), recall.inputs()["image"] @ recall.encode, **TOLERANCE)


def test_sources_say_how_many_frames_the_policy_sees(started):
    _, policy = started
    frames = [policy.info("vlart_bundle_source", SourceInfo, policy.bundle, i).frames for i in range(3)]
    assert frames == [0, 3, 2]


def depend_on_the_task(plan: Container) -> None:
    begin = plan.scalars("indices", [r["value"] for r in plan.records["indices"][1:3]])
    plan.records["stages"][0].update(dep_begin=begin, dep_count=2)


# Values: gain 0, image 1, state 2, feature 3, feature@1 4, feature@2 5, state@1 6, action 7. Delays: 3->4, 4->5, 2->6.
RULES = {
    "a delay's types differ": (change("delays", 0, input=1), "differ in shape"),
    "a delay's dtypes differ": (change("values", 6, dtype=vocabulary.DTYPES["i32"]), "differ in shape"),
    "a delayed value does not exist": (change("delays", 0, output=99), "does not exist"),
    "a delay writes a source": (change("delays", 0, output=2), "has another writer"),
    "a delay is its own input": (change("delays", 0, input=4), "has another writer"),
    "two delays write one value": (change("delays", 1, output=4, input=3), "has another writer"),
    "a chain is not in order": (change("delays", 0, input=5), "before anything wrote it"),
    "a delay feeds what it delays": (change("bindings", 0, value=4), "before anything wrote it"),
    "a stage writes a delayed value": (change("bindings", 1, value=4), "has another writer"),
    "a delayed value looks back": (lambda plan: plan.add("delays", input=7, output=8), "newest observation alone"),
    "a delay begins with a task source": (change("histories", 1, source=0), "newest observation alone"),
    "a delay begins with a stage of the task": (depend_on_the_task, "newest observation alone"),
    "a history's source does not exist": (change("histories", 0, source=9), "source 9 does not exist"),
    "a history comes twice": (change("histories", 1, source=1), "comes twice"),
    "a history has one frame": (change("histories", 0, frames=1), "1 frames are no history"),
    "a delayed value is read before its stage": (change("bindings", 0, value=5), "before anything wrote it"),
}


@pytest.mark.parametrize("rule", RULES)
def test_records_are_checked(lib, tmp_path, rule):
    apply, why = RULES[rule]
    recall = Recall()
    recall.bundle.value("spare", "f32", (1, 1, 3))
    root = recall.bundle.write(tmp_path)
    plan = recall.bundle.plan_container()
    apply(plan)
    (root / "plan.bin").write_bytes(plan.to_bytes())
    with pytest.raises(Failure) as failure, Policy(lib, root):
        pass
    assert failure.value.status == "CORRUPT"
    assert re.search(why, f"{failure.value.where} {failure.value.why}"), failure.value


def with_golden(recall: Recall) -> Recall:
    seen = [recall.inputs(seed) for seed in range(4)]
    for i, inputs in enumerate(seen):
        recall.bundle.frame(f"observation {i}", inputs, recall.reference(seen[: i + 1]))
    return recall


def test_tools_replay_episodes(lib, ort, tmp_path):
    """Every pass over the frames begins with an empty history; frames in another order fail the self-test."""
    root = with_golden(Recall()).bundle.write(tmp_path / "a")
    done = run_tool("vlart-run", root, "--ort", ort, "--self-test", "--repeat", 3)
    assert done.returncode == 0, done.stderr
    done = run_tool("vlart-run", root, "--ort", ort, "--self-test", "--cold")
    assert done.returncode == 0, done.stderr
    other = with_golden(Recall())
    rows = other.bundle.golden.records["frames"]
    rows[1], rows[2] = rows[2], rows[1]
    done = run_tool("vlart-run", other.bundle.write(tmp_path / "b"), "--ort", ort, "--self-test")
    assert done.returncode == 1 and "SELF_TEST_FAILED" in done.stderr


def test_dump_is_the_compilers_text(lib, tmp_path):
    from vlart.bundle.plan.binary import read_plan
    from vlart.bundle.plan.text import parse_plan, plan_text

    root = Recall().bundle.write(tmp_path)
    plan = read_plan(root / "plan.bin")
    text = run_tool("vlart-dump", root).stdout
    assert text == plan_text(plan) and parse_plan(text) == plan
    assert "history %1 frames=3\nhistory %2 frames=2\ndelay %3 -> %4\ndelay %4 -> %5\ndelay %2 -> %6\n" in text
    plan.check()
