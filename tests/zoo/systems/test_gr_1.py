from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.oracles.recorded import fill, grey_levels, numbers, read
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.inputs import PRESENT
from vlacompile.zoo.systems import gr_1

BASE, HAND = "image.base", "image.hand"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("gr-1", tmp_path_factory.mktemp("gr_1"))


def test_actions_are_those_of_pytorch_and_the_text_is_read_once_per_task(built):
    assert built.table() == {"vision.base": ({BASE}, 1), "vision.hand": ({HAND}, 1), "language": ({"tokens"}, 1),
                             "fusion": ({BASE, HAND, "state", "tokens", PRESENT}, 1)}
    assert worst(follow(built, steps=12)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_of_430_tokens_those_are_computed_that_the_action_sees(built):
    """The content of ten steps and the last step's query of the action; queries for frames nobody sees."""
    model = onnx.load(built.bundle.path / "stages" / "fusion.onnx", load_external_data=False)
    shapes = [tuple(t.dims) for t in model.graph.initializer]
    assert gr_1.STEP * gr_1.WINDOW == 430 and gr_1.CONTENT * gr_1.WINDOW + 1 == 221
    assert (221, 220) in shapes, "the mask of what is computed"
    assert not any(430 in s or 230 in s for s in shapes)


def test_only_the_newest_frame_is_encoded(built):
    """The others were when they were the newest: there is one image of each camera in its stage."""
    for camera in ("base", "hand"):
        model = onnx.load(built.bundle.path / "stages" / f"vision.{camera}.onnx", load_external_data=False)
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
        assert operators(built, f"vision.{camera}").count("Conv") == 1


def test_three_linears_of_the_action_are_one(built):
    """Of the chain width -> width/2 -> width/2 -> 6 and 1 no activation is in the way."""
    model = onnx.load(built.bundle.path / "stages" / "fusion.onnx", load_external_data=False)
    half = gr_1.SMALL.width // 2
    assert not any(half in t.dims for t in model.graph.initializer)


def model_with_weights() -> gr_1.Gr1:
    return fill(gr_1.Gr1(gr_1.SMALL))


def answer(model: gr_1.Gr1, **changed: torch.Tensor) -> np.ndarray:
    words = (torch.arange(77)[None] + 7) * (torch.arange(77) < 9) + 99 * (torch.arange(77) == 9)
    gripper = torch.where(torch.arange(10) < 4, 1.0, -1.0)[None, :, None]
    given = {"tokens": words, "state": torch.cat([numbers(9, 1, 10, 6), gripper], 2),
             BASE: grey_levels(0, 10, 28, 28, 3)[None], HAND: grey_levels(1, 10, 12, 12, 3)[None],
             PRESENT: torch.ones(1, 10, dtype=torch.bool)} | changed
    with torch.no_grad():
        return model(**given)["action"][0, 0].numpy()


def test_actions_are_the_original_code_s():
    """With its weights by name; it predicts future frames as well, and recorded the gripper before its threshold."""
    model, want = model_with_weights(), read("gr_1")[0]
    got = answer(model)
    assert np.abs(got[:6] - want[:6]).max() <= 1e-5 and got[6] == np.sign(want[6] - 0.5)
    other = answer(model, **{BASE: grey_levels(5, 10, 28, 28, 3)[None]})
    assert np.abs(other[:6] - want[:6]).max() > 1e-4


@pytest.mark.parametrize("seen", [1, 4, 10])
def test_an_episode_begins_at_the_first_place(seen):
    """The authors fill a window of zeros from its beginning, mask the rest, and read the action of the newest step."""
    policy, read_at = catalogue.load("zoo:gr-1@tiny"), []
    model, inputs = policy.observe, dict(policy.example_inputs)
    there = torch.arange(gr_1.WINDOW)[None]
    windows = ("state", BASE, HAND)
    given = {n: torch.cat([inputs[n][:, :1].expand(1, gr_1.WINDOW - seen + 1, *inputs[n].shape[2:]),
                           inputs[n][:, 1:seen]], 1) for n in windows}  # as a session fills a history
    filled = {n: torch.cat([inputs[n][:, :seen], torch.zeros_like(inputs[n][:, seen:])], 1) for n in windows}
    model.transformer.register_forward_hook(lambda module, args, out: read_at.append(
        out.view(gr_1.WINDOW, gr_1.STEP, -1)[:, gr_1.CONTENT]))
    with torch.no_grad():
        model(**inputs | given | {PRESENT: there >= gr_1.WINDOW - seen})
        model(**inputs | filled | {PRESENT: there < seen})
        model(**inputs | given)
    torch.testing.assert_close(read_at[0][-1], read_at[1][seen - 1])
    same = torch.allclose(read_at[2][-1], read_at[0][-1])
    assert same == (seen == gr_1.WINDOW), "copies of the first step are others"


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        model = gr_1.Gr1(gr_1.Sizes())
    count = sum(p.numel() for p in model.parameters()) / 1e6
    trained = count - sum(p.numel() for m in (model.model_clip, model.model_mae) for p in m.parameters()) / 1e6
    assert count == pytest.approx(195, abs=5) and trained == pytest.approx(46, abs=5)
