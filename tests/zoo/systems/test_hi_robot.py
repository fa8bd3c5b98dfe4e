from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, changed, follow, worst
from tests.zoo.plans import every_stage
from tests.zoo.precision import check_precision
from vlacompile.zoo.blocks.inputs import MASK, TOKENS
from vlacompile.zoo.systems.hi_robot import CAMERAS, MOST, high, prompt

HIGH, TEXT = {high(c) for c in CAMERAS}, {TOKENS, MASK}
LOW = {f"image.{c}" for c in CAMERAS} | {"state", "noise"}
LANE = "\n".join(["", "[[lane]]", 'name = "high"', f"sources = {sorted(HIGH | TEXT)}".replace("'", '"'),
                  "clock_hz = 1", "max_age_ms = 60000", ""])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hi_robot")
    recipe = every_stage(folder)
    with Path(recipe).open("a", encoding="utf-8") as file:
        file.write(LANE)
    return build("hi-robot", folder, recipe=recipe)


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_high_level_is_a_loop_of_its_own_ahead_of_the_low_levels(built):
    table, plan = built.table(), built.bundle.plan
    assert table["step.1"] == (HIGH | TEXT, MOST - 1) and table["step.2"] == (HIGH | TEXT | LOW, 10)
    assert built.stage("step.1").end is not None
    slow = {s.name for s in plan.stages if plan.lane_of(s) == 0}
    assert slow == {n for n, (depends, _) in table.items() if depends <= HIGH | TEXT}


def test_pi0_goes_on_with_the_command_written_last(built):
    """Two threads' worth of sessions: the high level sees something else only when it steps."""
    policy, draw = built.policy, torch.Generator().manual_seed(3)
    plans = [{n: changed(policy, n, draw) for n in sorted(HIGH | TEXT)} for _ in range(2)]
    seen = [{n: changed(policy, n, draw) for n in sorted(LOW)} for _ in range(3)]

    def want(thought: dict, observed: dict) -> dict:
        with torch.no_grad():
            return policy.infer(**thought, **observed)

    commands = set()
    with vc.Lanes(built.bundle.path, threads=1) as lanes:
        for step, thought in enumerate(plans, 1):
            for name, value in thought.items():
                lanes["high"].write(name, value)
            lanes["high"].step()
            for observed in seen:
                for name, value in observed.items():
                    lanes.control.write(name, value)
                lanes.control.step()
                expected = want(thought, observed)
                assert lanes.followed("high").sequence == step
                spread = expected["action"].std((0, 1)).numpy()
                assert np.abs((lanes.control.read("action") - expected["action"].numpy()) / spread).max() <= 10 * FP32
                commands.add(tuple(expected["command"][0].tolist()))
    assert len(commands) == 2, "what the high level sees decides the command"


def test_a_command_becomes_the_prompt_of_pi0():
    written = torch.zeros(1, MOST, dtype=torch.int64)
    written[0, :4] = torch.tensor([7, 9, 1, 0])  # <eos> is 1
    ids, mask = prompt(written)
    assert ids[0, :5].tolist() == [2, 7, 9, 108, 0] and mask.sum() == 4
    ids, mask = prompt(torch.full((1, MOST), 5))
    assert ids[0, -1] == 108 and bool(mask.all())
