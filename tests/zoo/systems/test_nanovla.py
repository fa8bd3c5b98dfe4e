from __future__ import annotations

import pytest

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision

CAMERAS = {"image.base", "image.wrist"}
TEXT = {"tokens", "mask"}


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    return build("nanovla-r", tmp_path_factory.mktemp("nanovla"))


@pytest.mark.parametrize("backbone", ["light", "heavy"])
def test_each_backbone_gives_the_actions_of_pytorch(routed, backbone):
    assert worst(follow(routed, backbone=backbone)) <= FP32


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("nanovla", tmp_path_factory.mktemp("single"))


def test_language_is_cached_per_task_and_the_first_self_attention_is_constant(built):
    table = built.table()
    assert table == {"vision.base": ({"image.base"}, 1), "vision.wrist": ({"image.wrist"}, 1),
                     "language": (TEXT, 1), "fusion": (CAMERAS | TEXT | {"state"}, 1)}
    assert worst(follow(built)) <= FP32
    plan = built.bundle.plan
    assert plan.action.execute_steps == 10


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)
