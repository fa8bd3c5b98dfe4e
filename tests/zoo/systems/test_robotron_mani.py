from __future__ import annotations

import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.plans import every_stage
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.inputs import PRESENT
from vlacompile.zoo.systems import robotron_mani

BASE, HAND, TEXT = "image.base", "image.hand", {"tokens", "mask"}
POSE, PROJECTION = "calibration.hand", "calibration.base"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robotron_mani")
    return build("robotron-mani", folder, recipe=every_stage(folder))


def test_a_fixed_camera_s_pillars_depend_on_its_newest_frame_alone(built):
    """Its calibration is known, so that what the first layer of pillars asks for, and where, is a constant."""
    table = built.table()
    assert PROJECTION not in set().union(*(depends for depends, _ in table.values()))
    assert table["vision.base"] == ({BASE}, 1) and table["vision.hand"] == ({HAND}, 1)
    found = {n: operators(built, n) for n in table}
    assert found["vision.base"].count("GridSample") == robotron_mani.SMALL.layers
    assert not any(ops.count("GridSample") for n, ops in found.items() if n != "vision.base")
    assert all(found[f"vision.{camera}"].count("Conv") == 1 for camera in ("base", "hand"))
    assert worst(follow(built, steps=5)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_keys_of_the_words_are_the_task_s_and_the_hand_s_rays_its_pose_s(built):
    depends = [d for d, _ in built.table().values()]
    assert TEXT in depends and {POSE} in depends and {HAND, POSE} in depends


def test_an_action_sees_where_the_fixed_camera_is():
    policy = catalogue.load("zoo:robotron-mani-calibrated@tiny")
    assert policy.sources[PROJECTION].update == "task"
    with torch.no_grad():
        want, other = (policy.infer(**policy.example_inputs | {PROJECTION: policy.example_inputs[PROJECTION] * scale})
                       for scale in (1.0, torch.tensor([1.0, 1.0, 1.4])[:, None]))
    assert not torch.equal(want["action"], other["action"])


@pytest.mark.parametrize("seen", [1, 5, 12])
def test_an_episode_begins_with_one_step(seen, monkeypatch):
    """The authors' window grows with the episode: as many steps follow the words as there are."""
    policy = catalogue.load("zoo:robotron-mani-calibrated@tiny")
    inputs, absent = dict(policy.example_inputs), robotron_mani.WINDOW - seen
    windows = [n for n, s in policy.sources.items() if s.history > 1]
    last = {n: inputs[n][:, absent:] for n in windows}
    filled = {n: torch.cat([t[:, :1].expand(1, absent, *t.shape[2:]), t], 1) for n, t in last.items()}
    with torch.no_grad():
        got = policy.observe(**inputs | filled | {PRESENT: torch.arange(robotron_mani.WINDOW)[None] >= absent})
        copies = policy.observe(**inputs | filled)
        monkeypatch.setattr(robotron_mani, "WINDOW", seen)
        want = policy.observe(**inputs | last | {PRESENT: torch.ones(1, seen, dtype=torch.bool)})
    torch.testing.assert_close(got["action"], want["action"])
    assert torch.allclose(copies["action"], want["action"]) == (seen == 12), "copies of the first step are others"


def test_parameters_are_those_of_the_parts():
    """MPT-1B, cross-attention before each of its layers, CLIP-L."""
    with torch.device("meta"):
        model = robotron_mani.RoboTron(robotron_mani.Sizes())
    millions = lambda part: sum(p.numel() for p in part.parameters()) / 1e6
    assert millions(model.blocks) + millions(model.wte) == pytest.approx(1311, abs=10)
    assert millions(model.cross) == pytest.approx(880, abs=10)
    assert millions(model.vision_encoder) == pytest.approx(303, abs=2)
