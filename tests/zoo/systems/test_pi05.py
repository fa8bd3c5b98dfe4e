from __future__ import annotations

import pytest
import torch

from tests.zoo.built import FP32, build, follow, worst
from tests.zoo.plans import every_stage, planned
from tests.zoo.precision import check_precision
from tests.zoo.systems.openpi_oracle import shares
from vlacompile.frontends.transformer import added
from vlacompile.pipeline import plan
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.paligemma import END
from vlacompile.zoo.blocks.prefix_lm import pixels
from vlacompile.zoo.systems.pi05 import ASKED, ASKED_MASK, MOST, high

CAMERAS = {"image.cam_high", "image.cam_left_wrist", "image.cam_right_wrist"}
LIBERO = {"image.image", "image.wrist_image"}
TEXT = {"tokens", "mask"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi05")
    return build("pi05-libero", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_a_prompt_without_state_is_read_once_per_task(built):
    table = built.table()
    assert table["language"] == (TEXT, 1) and table["fusion.1"] == (LIBERO, 1)
    assert table["fusion.2"] == (LIBERO | TEXT, 1) and table["step"] == (LIBERO | TEXT | {"noise"}, 10)
    assert "state" not in built.policy.sources


def test_modulations_of_all_norms_are_tables_over_the_steps(tmp_path):
    found = planned("pi05", tmp_path)
    stages = {s.stage: s for s in found.stages}
    norms, width = 2 * 2 + 1, 16
    assert found.parameters["folded"] == norms * (width + 1) * 3 * width + 2 * (width + 1) * width
    # of each norm scale, shift and gate; no residual follows the last
    assert [f.type for f in found.folded] == ["f32[10,1,1,16]"] * (3 * norms - 1)
    assert set(stages["step"].sources) == CAMERAS | TEXT | {"noise"} and stages["step"].iterations == 10
    # offsets of joints are added to the state behind the loop; the text changes with every observation
    assert "state" in stages["decode"].sources and found.sources["tokens"] == "observation"


@pytest.fixture(scope="module")
def with_subtask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi05_subtask")
    return build("pi05-subtask", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch_and_the_subtask_is_a_loop_ahead_of_them(with_subtask):
    """Of the high level nothing runs for what the low level sees."""
    slow = {high(c) for c in CAMERAS} | {ASKED, ASKED_MASK}
    table, stages = with_subtask.table(), {s.name: s for s in with_subtask.bundle.plan.stages}
    assert worst(follow(with_subtask)) <= FP32
    assert table["step.1"] == (slow, MOST - 1) and stages["step.1"].end is not None
    assert table["step.2"] == (slow | CAMERAS | TEXT | {"noise"}, 10) and stages["step.2"].end is None


def test_a_subtask_is_the_text_that_a_decoder_without_a_cache_writes():
    policy = catalogue.load("zoo:pi05-subtask@tiny")
    robot, inputs = policy.observe.robot, policy.example_inputs
    seen, text = [pixels(inputs[high(c)]) for c in robot.cameras], inputs[ASKED][:, inputs[ASKED_MASK][0]]
    with torch.no_grad():
        for parameter in robot.language.parameters():
            parameter.mul_(5)  # else every word is the one before
        got = robot.write(seen, inputs[ASKED], inputs[ASKED_MASK], 8)
        x = torch.cat([*(robot.projector(robot.vision(f)) for f in seen), robot.embed(text) * 32**0.5], 1)
        count, words = x.shape[1], []
        for _ in range(8):
            n = x.shape[1]
            visible = torch.ones(n, n, dtype=torch.bool).tril()
            visible[:count, :count] = True
            hidden, _ = robot.language.run(x, added(visible[None]), torch.arange(n)[None])
            words.append(int((hidden[0, -1] @ robot.embed.weight.T).argmax()))
            x = torch.cat([x, robot.embed(torch.tensor([[words[-1]]])) * 32**0.5], 1)
    assert END not in words and len(set(words)) > 2 and got[0].tolist() == words


def test_the_low_level_obeys_the_subtask_up_to_its_end():
    policy = catalogue.load("zoo:pi05-subtask@tiny")
    model, inputs = policy.observe, dict(policy.example_inputs)
    answers = {"short": [7, 9, END, 0], "same": [7, 9, END, 11], "other": [7, 10, END, 0]}
    found = {}
    with torch.no_grad():
        for name, ids in answers.items():
            model.robot.write = lambda *_, ids=ids: torch.tensor([ids])
            found[name] = model(**inputs)["action"]
    assert torch.equal(found["short"], found["same"]) and not torch.allclose(found["short"], found["other"])


@pytest.mark.full
def test_a_plan_at_real_size_has_no_modulation_left():
    found = plan("zoo:pi05", weights=False).parameters
    assert round(found["all"] / 1e6) == 3353 and round(found["folded"] / 1e6) == 119


@pytest.mark.parametrize("case", ["pi05_droid", "pi05_libero"])
def test_the_module_answers_as_openpi(case, tmp_path):
    found = shares(case, tmp_path)
    assert found.diagonal().max() < FP32 and found[0, 1] > 100 * FP32
