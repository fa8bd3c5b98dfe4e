from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.oracles import internvla_inputs as oracle
from tests.zoo.oracles.recorded import drawn
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo.systems import internvla_m1 as m1

CAMERAS, TEXT = set(m1.CAMERAS), {"tokens", "mask"}
SEEN = CAMERAS | TEXT


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("internvla-m1", tmp_path_factory.mktemp("internvla"))


def test_actions_are_those_of_pytorch_and_every_camera_has_a_stage(built):
    table = built.table()
    assert worst(follow(built)) <= FP32
    assert {"vision.base": ({"image.base"}, 1), "vision.wrist": ({"image.wrist"}, 1)}.items() <= table.items()
    assert table["step"] == (SEEN | {"noise"}, m1.STEPS)
    assert not any(depends and depends <= TEXT for depends, _ in table.values()), "the fixed words are constants"


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_both_halves_of_the_guidance_are_one_batch(built):
    expert = built.policy.observe.action_model["net"]
    step = built.stage("step")
    matrices = sum(p.numel() for p in expert.blocks.parameters() if p.dim() == 2)
    assert step.weight_bytes == pytest.approx(4 * matrices, rel=0.05)
    rows = m1.QUERIES + m1.HORIZON
    sizes = m1.SMALL.expert
    linears = 2 * 2 * rows * 12 * sizes.width**2 * sizes.depth  # of two halves; the last layer is for actions alone
    assert 0.8 * linears <= step.flops < linears


@pytest.mark.full
def test_parameters_are_those_of_its_configuration():
    found = plan("zoo:internvla-m1", weights=False)
    assert found.parameters["all"] / 1e6 == pytest.approx(3755 + 22 + 86.5 + 9.5, rel=0.01)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(oracle.RECORDED.read_text(encoding="utf-8"))


def original(shapes: dict[str, list[int]], change=lambda name, weight: weight) -> m1.InternVla:
    """The module with the weights of the authors' names, the chat's fixed words, and actions as they are denoised."""
    model = m1.InternVla(replace(m1.SMALL, sines=256))  # of the authors' time embedding
    files = drawn("internvla", shapes, lambda n, s: change(n, oracle.weight_of(n, s)))
    m1.SYSTEM.checkpoint.fill(model, m1.at_places(files, m1.SMALL.vision.grid[0]))
    model.q01.fill_(-1.0)
    model.q99.fill_(1.0)
    chat = model.qwen_vl_interface["model"]
    chat.before.copy_(oracle.BEFORE)
    chat.between.copy_(oracle.BETWEEN)
    return model


def answer(model: m1.InternVla, seed: int) -> np.ndarray:
    frames = dict(zip(m1.CAMERAS, oracle.frames(seed), strict=True))
    mask = torch.arange(m1.LENGTH)[None] < oracle.USED
    with torch.no_grad():
        return model(**frames, tokens=oracle.words(seed), mask=mask, noise=oracle.NOISE)["action"][0].numpy()


@pytest.mark.parametrize("seed", range(2))
def test_actions_are_those_of_the_authors(recorded, seed):
    want, got = np.array(recorded["chunks"][seed]), answer(original(recorded["shapes"]), seed)
    assert np.abs(want).max() < 1 and np.abs(got - want)[:, :-1].max() <= FP32 * want.std()
    assert np.array_equal(got[:, -1], want[:, -1] >= 0.5)


@pytest.mark.parametrize("part", ["visual.blocks.1.mlp", "language_model.layers.1.self_attn.k_proj", "body.pos_embed",
                                  "body.cls_token", "uncondition", "ls2.gamma"])
def test_the_authors_answer_depends_on_every_part(recorded, part):
    """The control: of one tensor, the elements in another order."""
    got = answer(original(recorded["shapes"], lambda n, w: w.flatten().roll(1).view_as(w) if part in n else w), 0)
    want = np.array(recorded["chunks"][0])
    assert np.abs(got - want)[:, :-1].max() > 10 * FP32 * want.std()
