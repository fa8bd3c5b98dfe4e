from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.oracles import rt_1_inputs as oracle
from tests.zoo.oracles.recorded import drawn
from tests.zoo.plans import every_stage
from tests.zoo.precision import (
    ALLOWED,
    changed_actions,
    check_choices,
    in_precision,
    most_changed,
    stated,
    within,
)
from vlacompile.recipe.precision_recipe import PrecisionRecipe
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.inputs import PRESENT
from vlacompile.zoo.systems import rt_1

IMAGE, TEXT = "image.base", "embedding"
BLOCKS = 26


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rt_1")
    return build("rt-1", folder, recipe=every_stage(folder))


def test_actions_are_those_of_pytorch_and_the_modulation_is_read_once_per_task(built):
    table = built.table()
    alone = [n for n, (depends, _) in table.items() if depends == {TEXT}]
    assert len(alone) == 1 and operators(built, alone[0]).count("Gemm") == 2 * (BLOCKS + 1)
    assert not any(operators(built, n).count("Gemm") for n in table if n not in alone)
    assert worst(follow(built, steps=10)) <= FP32


def test_eleven_passes_of_the_transformer_are_one(built):
    """And one image goes through the encoder, whose blocks have two depthwise or pointwise convolutions at least: those
    of five older frames are kept."""
    found = [op for n in built.table() for op in operators(built, n)]
    assert found.count("ArgMax") == rt_1.ACTIONS == 11
    assert found.count("Softmax") == rt_1.SMALL.depth + 1, "of the layers, and of the eight tokens of a frame"
    encoder = rt_1.EfficientNet(rt_1.SMALL.net)
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in encoder.modules()) + 1
    assert found.count("Conv") == convolutions


def test_a_smaller_precision_costs_what_it_states(built):
    """Every token is a choice among 256 scores. By stages nothing is within the allowed error, by blocks some is."""
    told = check_choices(built, replace(within(ALLOWED, ["int8"]), decide="block"))
    everything = in_precision(built, PrecisionRecipe(layers="int8"))  # the control
    other, of = changed_actions(everything)
    assert other / of > most_changed(told, of) and stated(everything).other > 4 * told.other


def test_sizes_are_those_of_the_paper():
    with torch.device("meta"):
        model = rt_1.Rt1(rt_1.Sizes())
    millions = lambda *parts: sum(p.numel() for m in parts for p in m.parameters()) / 1e6
    assert millions(model) == pytest.approx(35, abs=0.5)
    assert millions(model.net) == pytest.approx(10.7, abs=0.1) and len(model.films) == BLOCKS
    assert millions(model.films, model.film) == pytest.approx(4.2, abs=0.1)
    assert millions(model.transformer) == pytest.approx(19.35, abs=0.05)
    assert model.net(torch.empty(1, 3, 300, 300, device="meta")).shape[2:] == (9, 9)


def test_an_action_token_sees_no_action_token_and_no_later_frame():
    seen = rt_1.visible()
    acts = torch.tensor([i % rt_1.STEP >= rt_1.SEEN for i in range(len(seen))])
    assert not seen[acts][:, acts].any() and not seen.triu(1).any()
    assert seen[~acts].sum() == sum(i + 1 for i in range(len(seen)) if not acts[i])


@pytest.mark.parametrize("seen", range(1, rt_1.WINDOW + 1))
def test_an_episode_begins_as_the_authors_begin_it(seen):
    """They fill a window of zeros from its beginning, and read the action behind the newest frame."""
    policy = catalogue.load("zoo:rt-1@tiny")
    model, inputs = policy.observe, dict(policy.example_inputs)
    inputs[IMAGE] = torch.cat([inputs[IMAGE][:, :1].expand(-1, rt_1.WINDOW - seen + 1, -1, -1, -1),
                               inputs[IMAGE][:, 1:seen].flip(2)], 1)  # as a session fills a history
    with torch.no_grad():
        tokens = model.images(inputs[IMAGE], inputs[TEXT])[0, -seen:]
        sequence = torch.zeros(rt_1.WINDOW, rt_1.STEP, tokens.shape[-1])
        sequence[:seen, :rt_1.SEEN] = tokens
        every = torch.arange(rt_1.WINDOW * rt_1.STEP)
        logits = model.transformer(sequence.view(1, len(every), -1), every, rt_1.visible())
        first = (seen - 1) * rt_1.STEP + rt_1.SEEN - 1
        want = logits[:, first:first + rt_1.ACTIONS].argmax(-1)
        present = torch.arange(rt_1.WINDOW)[None] >= rt_1.WINDOW - seen
        images = model.images(inputs[IMAGE], inputs[TEXT])
        assert torch.equal(model.tokens(images, present), want)
        filled = model.tokens(images, torch.ones_like(present))
        assert torch.equal(filled, want) == (seen == rt_1.WINDOW), "copies of the first frame are others"


@pytest.fixture(scope="module")
def recorded():
    return json.loads(oracle.RECORDED.read_text(encoding="utf-8"))


def answers(shapes: dict[str, list[int]], change=lambda name, weight: weight) -> list[tuple[np.ndarray, np.ndarray]]:
    """(logits of the action tokens [11,256], the action) of every window, with weights by the names of the authors'
    variables."""
    model, found = rt_1.Rt1(oracle.SIZES), []
    files = drawn("rt-1", shapes, lambda n, s: change(n, oracle.weight_of_keras(n, s)))
    rt_1.SYSTEM.checkpoint.fill(model, rt_1.of_tensorflow(files, model))
    passes: list[torch.Tensor] = []
    model.transformer.register_forward_hook(lambda module, given, logits: passes.append(logits[0]))
    first = (rt_1.WINDOW - 1) * rt_1.STEP + rt_1.SEEN - 1
    for begin in range(oracle.STEPS - rt_1.WINDOW + 1):
        window = slice(begin, begin + rt_1.WINDOW)
        with torch.no_grad():
            action = model(**{IMAGE: oracle.FRAMES[None, window], TEXT: oracle.TEXTS[None, window],
                              PRESENT: torch.ones(1, rt_1.WINDOW, dtype=torch.bool)})["action"]
        found.append((passes[-1][first:first + rt_1.ACTIONS].numpy(), action[0].numpy()))
    return found


def test_actions_are_those_of_the_authors_in_tensorflow(recorded):
    """Of a full window, and of the next one, which has moved on."""
    for step, (logits, action) in zip(recorded["steps"], answers(recorded["shapes"]), strict=True):
        want = np.array(step["logits"])
        assert np.abs(logits - want).max() <= FP32 * want.std()
        np.testing.assert_allclose(action, step["action"], atol=1e-5)


@pytest.mark.parametrize("part", [
    "layer_with_weights-0.mean", "layer_with_weights-0.variance", "layer_with_weights-9._projection_mult.kernel",
    "layer_with_weights-20.gamma", "_token_learner.mlp._hidden_layer.kernel", "_layers.1.mha1._value_dense.bias",
    "_layers.0.mha1._output_dense.kernel", "_position_emb.kernel"])
def test_the_authors_answer_depends_on_every_part(recorded, part):
    """The control: of one variable, the elements in another order."""
    assert any(n.endswith(part) for n in recorded["shapes"])
    found = answers(recorded["shapes"], lambda n, w: w.flatten().roll(1).view_as(w) if n.endswith(part) else w)
    want = np.array(recorded["steps"][0]["logits"])
    assert np.abs(found[0][0] - want).max() > 100 * FP32 * want.std()
