"""A loop whose end the data decides, in libvlart: it stops there, with its results where they belong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sample_loops import Ending
from vlart_ctypes import Failure, Policy, StageInfo, StageStats

from tests.runtime_c.running import assert_outputs, run_tool
from vlart.bundle.plan.binary import read_plan
from vlart.bundle.plan.plan import LoopEnd
from vlart.bundle.plan.text import parse_plan, plan_text


def stats(policy: Policy) -> StageStats:
    return policy.info("vlart_session_stats", StageStats, policy.session, 0)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_it_stops_at_its_end_and_gives_what_there_is(lib, engine, tmp_path, most):
    ending, total = Ending(most), 0
    with Policy(lib, engine.write(ending.bundle, tmp_path)).start(engine.library) as policy:
        assert policy.info("vlart_bundle_stage", StageInfo, policy.bundle, 0).end == 1
        assert policy.info("vlart_bundle_stage", StageInfo, policy.bundle, 1).end == 0
        for turns in (*range(1, 10), 1, 3, 2):
            policy.run(ending.inputs(turns))
            assert_outputs(policy, ending.reference(ending.inputs(turns)))
            total += min(turns, most)
            assert (stats(policy).last_iterations, stats(policy).iterations) == (min(turns, most), total)
        assert not np.array_equal(policy.read("action"), ending.reference(ending.inputs(1))["action"]), "the control"


def test_one_that_must_end_and_does_not_leaves_the_last_safe_chunk(lib, engine, tmp_path):
    ending = Ending(3, must_end=True)
    with Policy(lib, engine.write(ending.bundle, tmp_path)).start(engine.library) as policy:
        assert policy.info("vlart_bundle_stage", StageInfo, policy.bundle, 0).end == 2
        policy.run(ending.inputs(2))
        safe = policy.pop()
        with pytest.raises(Failure) as failure:
            policy.run(ending.inputs(5))
        assert failure.value.status == "LOOP_NOT_ENDED" and "halve" in failure.value.where
        assert "after all 3 iterations" in failure.value.why
        assert policy.queue().stale == 1 and policy.runs() == {"halve": 1, "act": 1}
        with pytest.raises(Failure) as failure:
            policy.step()  # it is tried again, with the same result
        assert failure.value.status == "LOOP_NOT_ENDED"
        policy.run(ending.inputs(3))
        assert_outputs(policy, ending.reference(ending.inputs(3)))
        assert policy.queue().stale == 0 and not np.array_equal(policy.pop(), safe)


def test_a_run_that_is_cut_is_run_again(lib, engine, tmp_path):
    ending = Ending(7)
    with Policy(lib, engine.write(ending.bundle, tmp_path)).start(engine.library) as policy:
        policy.write("state", ending.inputs(5)["state"])
        with pytest.raises(Failure) as failure:
            for _ in range(100):
                policy.step(1)
                policy.tick_invalidate()
        assert failure.value.status == "DEADLINE_MISSED"
        policy.step(0)
        assert_outputs(policy, ending.reference(ending.inputs(5)))


def test_the_plan_says_so_in_every_form(tmp_path):
    root = Ending(4, must_end=True).bundle.write(tmp_path)
    plan = read_plan(root / "plan.bin")
    assert plan.stages[0].end == LoopEnd(7, True) and plan.stages[1].end is None
    text = run_tool("vlart-dump", root).stdout
    assert "\n  end %7 must_end=1\n" in text
    assert text == plan_text(plan) and parse_plan(text) == plan


def test_the_tools_say_how_many_iterations_ran(lib, ort, tmp_path):
    ending = Ending(4)
    for turns in (1, 2, 3, 6):
        ending.bundle.frame(f"{turns}", ending.inputs(turns), ending.reference(ending.inputs(turns)))
    root = ending.bundle.write(tmp_path)
    report = json.loads(run_tool("vlart-run", root, "--ort", ort, "--self-test", "--json").stdout)
    first, second = report["stages"]
    assert first["iterations"] == 4 and first["mean_iterations"] == 2.5 and "mean_iterations" not in second
    table = run_tool("vlart-run", root, "--ort", ort, "--self-test").stdout
    assert "halve: 2.5 of at most 4 iterations in the mean" in table
