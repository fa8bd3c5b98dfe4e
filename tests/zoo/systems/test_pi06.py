from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.plans import every_stage
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.gemma3 import EVERY
from vlacompile.zoo.systems.pi06 import SMALL, STEPS, Pi06

CAMERAS = {"image.base", "image.left_wrist", "image.right_wrist", "image.back"}
TEXT = {"tokens", "mask"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi06")
    return build("pi06", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_five_steps_behind_one_prefix_that_changes_with_every_observation(built):
    table = built.table()
    assert {n: table[n] for n in table if n.startswith("vision")} == {
        c.replace("image", "vision"): ({c}, 1) for c in CAMERAS}
    assert table["fusion.2"] == (CAMERAS | TEXT, 1) and table["step"] == (CAMERAS | TEXT | {"noise"}, STEPS)
    width, norms = SMALL.expert.width, 2 * EVERY + 1
    modulations = {v.name for v in built.bundle.plan.values if v.type.dims == (STEPS, 1, 1, width)}
    assert len(modulations) == 3 * norms - 1  # scale, shift, gate; no residual follows the last norm


def test_windows_and_both_bases_of_positions_count():
    """The controls of what only layers of a kind read."""
    policy = catalogue.load("zoo:pi06@tiny")
    with torch.no_grad():
        first = policy.infer(**policy.example_inputs)["action"]
        for change in ({"window": 1000}, {"scale": 1.0}):
            other = Pi06(replace(SMALL, expert=replace(SMALL.expert, **change))).eval()
            other.load_state_dict(policy.observe.state_dict())
            assert (other(**policy.example_inputs)["action"] - first).abs().max() > 1e-3


@pytest.mark.full
def test_a_plan_at_real_size():
    found = plan("zoo:pi06", weights=False).parameters
    # 69 modulations and the time's two layers are tables
    assert round(found["folded"] / 1e6) == round((69 * 1281 * 3840 + 2 * 1281 * 1280) / 1e6)
    assert 5.5e9 < found["all"] < 5.7e9
