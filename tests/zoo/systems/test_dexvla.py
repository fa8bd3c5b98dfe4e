from __future__ import annotations

import pytest

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo.systems import dexvla

CAMERAS = set(dexvla.CAMERAS)
TEXT = {"tokens", "mask", "subtask", "subtask_mask"}
SEEN = CAMERAS | TEXT | {"state"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("dexvla", tmp_path_factory.mktemp("dexvla"))


def test_actions_are_those_of_pytorch_and_every_camera_has_a_stage(built):
    """No stage depends on the padding alone: keys and values of the fixed words are constants."""
    assert built.table() == {
        "vision.top": ({"image.top"}, 1), "vision.left": ({"image.left"}, 1), "vision.right": ({"image.right"}, 1),
        "fusion.1": (CAMERAS, 1), "fusion.2": (CAMERAS | TEXT, 1), "fusion.3": (SEEN, 1),
        "step": (SEEN | {"noise"}, dexvla.STEPS), "decode": (SEEN | {"noise"}, 1)}
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_modulations_of_all_steps_are_made_in_one_product_before_the_loop(built):
    expert, plan_ = built.policy.observe.expert, built.bundle.plan
    stages = {s.name: s for s in plan_.stages}
    modulating = sum(p.numel() for n, p in expert.named_parameters() if "adaLN" in n)
    inside = sum(p.numel() for part in (*expert.blocks, expert.x_embedder, expert.final_layer.linear)
                 for n, p in part.named_parameters() if "adaLN" not in n)
    assert stages["step"].weight_bytes == pytest.approx(4 * inside, rel=0.05)
    assert 4 * modulating <= stages["fusion.3"].weight_bytes < 6 * modulating
    rows = [plan_.values[b.value].type.dims for b in stages["step"].inputs if b.mode == "row"]
    width, depth = dexvla.SMALL.expert.width, dexvla.SMALL.expert.depth
    assert sum(d[-1] for d in rows if d[-1] % width == 0) == width * (6 * depth + 2)


@pytest.mark.full
def test_parameters_are_those_of_the_published_configuration():
    found = plan("zoo:dexvla", weights=False)
    assert found.parameters["all"] / 1e6 == pytest.approx(2209 + 952, rel=0.01)
    step = next(s for s in found.stages if s.stage == "step")
    assert step.weight_bytes / 4e6 == pytest.approx(637, rel=0.02)
    body = sum(s.parameters for s in found.stages if s.stage.startswith("fusion"))
    assert body < 1.3 * 1544e6, "the language model is read by one stage"
