from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.oracles.recorded import fill, grey_levels, numbers, read
from tests.zoo.precision import bound, check_precision, errors, in_precision, stated
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.zoo.systems import act

CAMERAS = [f"image.cam_{name}" for name in ("high", "low", "left_wrist", "right_wrist")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("act", tmp_path_factory.mktemp("act"))


def test_chunks_are_those_of_pytorch_and_each_camera_has_a_stage_of_its_own(built):
    assert built.table() == {**{f"vision.{c.removeprefix('image.')}": ({c}, 1) for c in CAMERAS},
                             "fusion": ({*CAMERAS, "state"}, 1)}
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_a_coarser_one_costs_more_than_that(built):
    """The control of this check, for all systems."""
    told = stated(in_precision(built))
    found, _ = errors(in_precision(built, PrecisionRecipe(layers="int4")), told)
    assert found.max() > 2 * bound(told)


def test_one_decoder_layer_is_left_and_its_self_attention_is_a_constant(built):
    """A decoder layer has two attentions and three norms."""
    ops = operators(built, "fusion")
    encoder = act.SMALL.encoder
    assert ops.count("Softmax") == encoder + 1
    assert ops.count("LayerNormalization") == 2 * encoder + 2 + 1


def test_actions_are_the_original_code_s():
    """With its weights by name."""
    model = fill(act.Act(replace(act.SMALL, vision=64)))
    inputs = {c: grey_levels(i, 1, 96, 128, 3) for i, c in enumerate(CAMERAS)}
    with torch.no_grad():
        got = model(**inputs, state=numbers(9, 1, 14))["action"][0].numpy()
    want = read("act")
    assert np.abs(got - want).max() <= 1e-5
    with torch.no_grad():  # cameras swapped would give the same: their places have the same codes
        mirrored = model(**inputs | {CAMERAS[0]: inputs[CAMERAS[0]].flip(2)}, state=numbers(9, 1, 14))["action"][0]
    assert np.abs(mirrored.numpy() - want).max() > 1e-4


def test_parameters_are_those_of_the_paper():
    """They round it to 80 million."""
    with torch.device("meta"):
        model = act.Act(act.Sizes())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(83.9, abs=0.1)
