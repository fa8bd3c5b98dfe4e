from __future__ import annotations

import onnx
import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.inputs import PRESENT
from vlacompile.zoo.systems import gr_2

BASE, HAND = "image.base", "image.hand"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("gr-2", tmp_path_factory.mktemp("gr_2"))


def test_trajectories_are_those_of_pytorch_and_codes_leave_the_cameras_stages(built):
    assert built.table() == {"vision.base": ({BASE}, 1), "vision.hand": ({HAND}, 1), "language": ({"tokens"}, 1),
                             "fusion": ({BASE, HAND, "state", "tokens", PRESENT}, 1)}
    assert worst(follow(built, steps=6)) <= FP32
    for camera in ("base", "hand"):
        assert operators(built, f"vision.{camera}").count("ArgMin") == 1, "of the newest frame alone"


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_queries_that_nobody_sees_leave_and_the_latent_is_a_constant(built):
    model = onnx.load(built.bundle.path / "stages" / "fusion.onnx", load_external_data=False)
    policy = catalogue.load("zoo:gr-2@tiny")
    content = policy.observe.sizes.content * gr_2.WINDOW
    shapes = [tuple(t.dims) for t in model.graph.initializer]
    assert (content + 1, content) in shapes and not any(content + gr_2.WINDOW in s for s in shapes)
    assert not any(gr_2.LATENT in t.dims and "latent" in t.name for t in model.graph.initializer)


@pytest.mark.parametrize("seen", [1, 3, 4])
def test_an_episode_begins_at_the_first_place(seen):
    """What is before it counts for nothing."""
    policy = catalogue.load("zoo:gr-2@tiny")
    inputs, absent = dict(policy.example_inputs), gr_2.WINDOW - seen
    windows = ("state", BASE, HAND)
    other = inputs | {n: torch.cat([inputs[n][:, absent:absent + 1].expand(1, absent, *inputs[n].shape[2:]),
                                    inputs[n][:, absent:]], 1) for n in windows}  # as a session fills a history
    present = {PRESENT: torch.arange(gr_2.WINDOW)[None] >= absent}
    with torch.no_grad():
        one, two, whole = (policy.observe(**x)["action"] for x in (inputs | present, other | present, other))
    torch.testing.assert_close(one, two)
    assert torch.allclose(one, whole) == (seen == gr_2.WINDOW), "copies of the first step are others"


@pytest.mark.parametrize(("variant", "millions"), [("95m", 95), ("30m", 30), ("312m", 312), ("719m", 719)])
def test_trained_parameters_are_those_of_the_paper(variant, millions):
    """The transformer with its codes, to which the decoder of trajectories is added."""
    with torch.device("meta"):
        model = gr_2.Gr2(gr_2.VARIANTS[variant])
    trained = sum(p.numel() for m in (model.transformer, model.codes) for p in m.parameters()) / 1e6
    assert trained == pytest.approx(millions, rel=0.05)
