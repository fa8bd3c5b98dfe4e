from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.oracles import octo_inputs as oracle
from tests.zoo.oracles.recorded import drawn
from tests.zoo.precision import check_precision
from vlacompile.pipeline import plan
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems import octo

CAMERAS, TEXT = set(octo.CAMERAS), {"tokens", "mask"}
SEEN = CAMERAS | TEXT | {octo.PRESENT}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("octo", tmp_path_factory.mktemp("octo"))


def test_actions_are_those_of_pytorch_and_the_task_is_read_once(built):
    table = built.table()
    assert worst(follow(built)) <= FP32
    assert table["language"] == (TEXT, 1)
    assert table["step"] == (SEEN | {"noise", octo.ADDED}, 1)  # the loop is small: all of it in one engine
    model, sizes = built.policy.observe, octo.SMALL["small"]
    weights = {s.name: s.weight_bytes for s in built.bundle.plan.stages}
    text, trunk = (sum(p.numel() for p in m.parameters()) for m in (
        model.octo_transformer.task_tokenizers["language"]["hf_model"].encoder,
        model.octo_transformer.block_transformer))
    # keys and values of the task are made with it, through all layers but what the last one would hand on
    assert weights["language"] >= 4 * (text + 0.5 * trunk)
    inner = sum(p.numel() for p in model.heads["action"]["diffusion_model"].reverse_network.parameters())
    outside = sizes.width * sizes.head + octo.TIMES * sizes.head  # of the readout and of the time, made before the loop
    assert weights["step"] == pytest.approx(4 * (inner - outside), rel=0.1)


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_channels_of_the_absent_goal_leave_the_stems(built):
    stages = [s for s in built.bundle.plan.stages if s.depends]
    names = {built.bundle.plan.values[v].name for s in stages for v in s.depends}
    assert names == SEEN | {"noise", octo.ADDED}
    account = plan(built.policy)
    assert any(f"{octo.STEPS} iterations" in note for note in account.notes)
    first = octo.SMALL["small"].stem[0]
    assert account.flops["folded"] >= 2 * 9 * 3 * first * sum((side // 2) ** 2 for side in octo.SMALL["small"].sides)


def test_a_missing_frame_counts_no_more_than_its_words():
    policy = catalogue.load("zoo:octo@tiny")
    inputs = dict(policy.example_inputs)
    changed = inputs | {c: torch.cat([inputs[c][:, :1].flip(2), inputs[c][:, 1:]], 1) for c in octo.CAMERAS}
    with torch.no_grad():
        for there, moves in ((True, True), (False, False)):
            seen = {octo.PRESENT: torch.tensor([[there, True]])}
            one, two = (policy.observe(**(x | seen))["action"] for x in (inputs, changed))
            assert bool((one - two).abs().max() > 1e-4) == moves


@pytest.fixture(scope="module")
def recorded():
    return json.loads(oracle.RECORDED.read_text(encoding="utf-8"))


def original(shapes: dict[str, list[int]], change=lambda name, weight: weight) -> octo.Octo:
    """The module with weights by the names of the authors' parameters, and actions as the network gives them."""
    files = drawn("octo", shapes, lambda n, s: change(n, oracle.weight_of_jax(n, s)))
    model = octo.Octo(octo.SMALL["small"])
    octo.SYSTEM.checkpoint.fill(model, octo.of_jax(files))
    model.action_mean.zero_()
    model.action_std.fill_(1.0)
    return model


def answer(model: octo.Octo, seen: list[bool]) -> np.ndarray:
    given = {"tokens": oracle.TOKENS, "mask": oracle.MASK, octo.PRESENT: torch.tensor([seen]), "noise": oracle.NOISE,
             octo.ADDED: oracle.ADDED}
    with torch.no_grad():
        return model(**given, **{f"image.{n}": x for n, x in oracle.FRAMES.items()})["action"][0].numpy()


def test_actions_are_those_of_the_authors_in_jax(recorded):
    model, want = original(recorded["shapes"]), np.array(recorded["chunks"])
    spread = want.std()
    for seen, chunk in zip(oracle.CASES, want, strict=True):
        assert np.abs(answer(model, seen) - chunk).max() <= FP32 * spread
    assert np.abs(want[0] - want[1]).max() > 0.1 * spread  # of the frame that is missing in one


@pytest.mark.parametrize("part", ["primary.SmallStem16_0.StdConv_0.kernel", "GroupNorm_1.scale", "hf_model.shared",
                                  "encoderblock_1.MlpBlock_0.Dense_0.bias", "time_preprocess.kernel"])
def test_the_authors_answer_depends_on_every_part(recorded, part):
    """The control: of one tensor, the elements in another order."""
    model = original(recorded["shapes"], lambda n, w: w.flatten().roll(1).view_as(w) if part in n else w)
    want = np.array(recorded["chunks"][0])
    assert np.abs(answer(model, oracle.CASES[0]) - want).max() > 100 * FP32 * want.std()


@pytest.mark.full
@pytest.mark.parametrize("variant", ["small", "base"])
def test_parameters_are_those_of_the_paper(variant):
    name = "octo" if variant == "small" else f"octo-{variant}"
    found, t5 = plan(f"zoo:{name}", weights=False), 109.63
    published = {"small": 27, "base": 93}[variant]
    assert found.parameters["all"] / 1e6 - t5 == pytest.approx(published, abs=0.5)
