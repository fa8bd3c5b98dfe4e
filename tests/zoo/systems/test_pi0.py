from __future__ import annotations

import pytest

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.plans import every_stage, planned
from tests.zoo.precision import check_precision
from tests.zoo.systems.openpi_oracle import shares
from vlacompile.pipeline import plan
from vlacompile.zoo import catalogue

CAMERAS = {"image.cam_high", "image.cam_left_wrist", "image.cam_right_wrist"}
TEXT = {"tokens", "mask"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi0")
    return build("pi0", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32
    assert built.bundle.plan.action.execute_steps == 25


def test_the_prefix_is_computed_once_and_ten_steps_read_its_keys(built):
    table, everything = built.table(), CAMERAS | TEXT | {"state", "noise"}
    assert {n: table[n] for n in table if n.startswith("vision")} == {
        c.replace("image", "vision"): ({c}, 1) for c in CAMERAS}
    assert table["state"] == ({"state"}, 1) and table["language"] == (TEXT, 1)
    assert table["fusion.2"] == (CAMERAS | TEXT, 1) and table["step"] == (everything, 10)


def test_time_is_a_table_and_what_the_last_layer_makes_of_the_prefix_is_dead(tmp_path):
    found = planned("pi0", tmp_path)
    # queries, output, MLP and norm of the last layer, and the norm behind it: the expert reads keys and values alone
    assert found.parameters["unread"] == 2 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    # action_time_mlp_in: the half that reads the time is folded, the other is one matrix with action_in_proj
    assert "f32[10,1,50,16]" in {f.type for f in found.folded}


def test_the_row_of_the_state_stays_in_the_loop(tmp_path):
    """It sees no action, and in ten steps it uses each weight of the expert ten times: at the real size to read them
    once more takes longer than the rows do, by the model of every Orin."""
    step = next(s for s in planned("pi0", tmp_path).stages if s.stage == "step")
    assert step.reads["state.0"] == "f32[1,16]" and "f32[1,1,51,83]" in step.reads.values()


def test_libero_has_two_cameras():
    assert {n for n in catalogue.load("zoo:pi0-libero@tiny").sources if n.startswith("image")} == {
        "image.image", "image.wrist_image"}


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


@pytest.mark.full
def test_a_plan_at_real_size_has_every_live_parameter():
    found = plan("zoo:pi0", weights=False).parameters
    assert round(found["all"] / 1e6) == 3238 and round(found["unread"] / 1e6) == 109


@pytest.mark.parametrize("case", ["pi0_aloha", "pi0_libero"])
def test_the_module_answers_as_openpi(case, tmp_path):
    found = shares(case, tmp_path)
    assert found.diagonal().max() < FP32 and found[0, 1] > 100 * FP32
