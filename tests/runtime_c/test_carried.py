"""Values that a step takes from the one before, for every engine of the host: sequences, what ends them, and steps that
fail."""

from __future__ import annotations

import numpy as np
import pytest
from sample_carried import Adding
from vlart_ctypes import Failure, Policy

from tests.runtime_c.running import assert_outputs, run_tool

BOUND = 100.0
WAY = {"onnxruntime": "--ort", "openvino": "--openvino"}


@pytest.fixture(params=["episode", "task"])
def started(request, lib, engine, tmp_path):
    adding = Adding(request.param, BOUND)
    with Policy(lib, engine.write(adding.bundle, tmp_path)).start(engine.library) as policy:
        yield adding, policy, request.param


def test_a_sequence_is_that_of_the_reference(started):
    adding, policy, _ = started
    seen = []
    for seed in range(7):
        seen.append(adding.inputs(seed // 2))  # also where nothing was written anew
        policy.run(seen[-1])
        assert_outputs(policy, adding.reference(seen))
    assert policy.runs() == {"add": 7, "mean": 7}


def test_a_step_goes_on_although_nothing_was_written(started):
    adding, policy, _ = started
    policy.run(adding.inputs(0))
    for count in range(2, 5):
        policy.step()
        assert policy.read("count.next") == count


def test_an_episode_ends_all_of_it(started):
    adding, policy, _ = started
    for _ in range(3):
        seen = []
        for seed in range(3):
            seen.append(adding.inputs(seed))
            policy.run(seen[-1])
            assert_outputs(policy, adding.reference(seen))
        policy.lib.check(policy.lib.c.vlart_session_reset(policy.session))
        for name in ("sum", "sum.next"):
            with pytest.raises(Failure) as failure:
                policy.read(name)
            assert failure.value.status == "VALUE_UNSET"


def test_a_task_ends_what_is_said_to_end_with_it(started):
    adding, policy, until = started
    first, second = adding.inputs(0), adding.inputs(1) | {"word": np.array([3])}
    policy.run(first)
    policy.run(first)
    policy.run(second)
    seen = [second] if until == "task" else [first, first, second]
    assert_outputs(policy, adding.reference(seen))
    policy.run(second)  # the same words again are no other task
    assert_outputs(policy, adding.reference([*seen, second]))


def test_a_step_that_fails_changes_nothing(started):
    adding, policy, _ = started
    seen = [adding.inputs(0), adding.inputs(1)]
    for inputs in seen:
        policy.run(inputs)
    kept = {name: policy.read(name) for name in ("sum.next", "count.next")}
    for way in ("refused", "late", "refused"):
        with pytest.raises(Failure) as failure:
            if way == "late":
                for name, array in adding.inputs(4).items():
                    policy.write(name, array)
                policy.step(1)
            else:
                policy.run(adding.inputs(2) | {"x": np.full((1, 1, 3), 10 * BOUND, np.float32)})
        assert failure.value.status == {"late": "DEADLINE_MISSED", "refused": "ACTION_OUT_OF_RANGE"}[way]
        for name, array in kept.items():
            np.testing.assert_array_equal(policy.read(name), array)
    seen.append(adding.inputs(3))
    policy.run(seen[-1])
    assert_outputs(policy, adding.reference(seen))


def test_a_first_step_that_fails_begins_again(started):
    adding, policy, _ = started
    with pytest.raises(Failure):
        policy.run(adding.inputs(2) | {"x": np.full((1, 1, 3), 10 * BOUND, np.float32)})
    with pytest.raises(Failure) as failure:
        policy.read("sum.next")
    assert failure.value.status == "VALUE_UNSET"
    policy.run(adding.inputs(0))
    assert_outputs(policy, adding.reference([adding.inputs(0)]))


def test_the_self_test_replays_episodes(lib, engine, tmp_path):
    adding = Adding()
    given = [adding.inputs(seed) for seed in range(4)]
    for i, inputs in enumerate(given):
        adding.bundle.frame(f"step {i}", inputs, adding.reference(given[2 if i >= 2 else 0: i + 1]))
        adding.bundle.golden.records["frames"][-1]["begins"] = int(i in (0, 2))
    done = run_tool("vlart-run", engine.write(adding.bundle, tmp_path), "--self-test", WAY[engine.name], engine.library)
    assert done.returncode == 0, done.stderr
    adding.bundle.golden.records["frames"][2]["begins"] = 0
    done = run_tool("vlart-run", engine.write(adding.bundle, tmp_path), "--self-test", WAY[engine.name], engine.library)
    assert done.returncode != 0 and "sum.next" in done.stderr
