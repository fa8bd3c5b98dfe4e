from __future__ import annotations

import pytest
import torch

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.zoo.blocks.resnet import ResNet
from vlacompile.zoo.systems import nanovla

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


@pytest.mark.parametrize(("variant", "millions"), [("s", 161), ("l", 546)])
def test_sizes_add_up_to_what_the_paper_gives_or_to_what_is_stated(variant, millions):
    """It gives 161 and 520 M."""
    sizes = nanovla.Sizes()
    with torch.device("meta"):
        model = nanovla.NanoVla(sizes, variant == "l", ResNet(18, sizes.vision))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.5)
    assert variant == "s" or millions == pytest.approx(1.05 * 520, abs=0.5)
