from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.zoo.built import FP32, build, follow, operators, worst
from tests.zoo.oracles import lapa_inputs as oracle
from tests.zoo.oracles.recorded import drawn, weight_of_flax
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.vqgan import VqganEncoder, VqganSizes, signed
from vlacompile.zoo.systems import lapa
from vlart.bundle.plan.stage_rows import stage_rows

TEXT, IMAGE = {"tokens", "mask"}, "image.base"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("lapa", tmp_path_factory.mktemp("lapa"))


def test_keys_of_the_prompt_are_computed_per_task_and_codes_per_frame(built):
    assert built.table() == {"vision.base": ({IMAGE}, 1), "language": (TEXT, 1), "step": ({*TEXT, IMAGE}, 1)}
    assert worst(follow(built, steps=5)) <= FP32
    assert operators(built, "vision.base").count("ArgMin") == 1


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built, choices=True)


def test_of_the_words_all_but_the_last_layer_s_mlp_is_the_task_s(built):
    """The last layer hands on keys and values alone, so that 128 rows pass one MLP fewer."""
    work = {r["stage"]: r["flops"] for r in stage_rows(built.bundle.plan)}
    sizes = lapa.SMALL.language
    keys = 2 * sizes.width**2
    layer = 2 * keys + 3 * sizes.width * sizes.hidden
    linears = 2 * lapa.PROMPT * ((sizes.depth - 1) * layer + keys)
    scores = 4 * lapa.PROMPT**2 * sizes.width * (sizes.depth - 1)
    assert work["language"] == linears + scores
    rows = lapa.SMALL.vision.tokens + 1 + len(lapa.SUFFIX) + lapa.ACTION - 1
    assert work["step"] < 2 * rows * (sizes.depth * layer + 2 * 2 * lapa.PROMPT * sizes.width)


def test_seven_tokens_are_decoded(built):
    """The first follows from the prompt, and the second from an empty cache."""
    assert [s.sampling.iterations for s in built.bundle.plan.stages if s.sampling] == [lapa.ACTION - 2]
    assert worst(follow(built, steps=2)) <= FP32


def test_another_word_gives_other_actions_and_padding_does_not():
    policy = catalogue.load("zoo:lapa@tiny")
    given = dict(policy.example_inputs)
    with torch.no_grad():
        want = policy.infer(**given)["action"]
        padded = given["tokens"].masked_fill(~given["mask"], 5)
        assert torch.equal(policy.infer(**given | {"tokens": padded})["action"], want)
        other = given["tokens"].masked_fill(given["mask"], 5)
        assert not torch.equal(policy.infer(**given | {"tokens": other})["action"], want)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(oracle.RECORDED.read_text(encoding="utf-8"))


def original(shapes: dict[str, list[int]], change=lambda name, weight: weight) -> lapa.Lapa:
    """The module with weights by the names of the authors' parameters, layers apart."""
    apart = dict(shapes)
    for name, shape in shapes.items():
        if f".{lapa.STACKED}." in name:
            del apart[name]
            apart |= {f"{name}#{i}": shape[1:] for i in range(shape[0])}

    def tensor(name: str, shape: list[int]) -> torch.Tensor:
        whole, _, layer = name.partition("#")
        found = change(whole, weight_of_flax(whole, shapes[whole]))
        return found[int(layer)] if layer else found

    files = drawn("lapa", apart, tensor).under(
        lambda n: n.replace(lapa.STACKED, n.partition("#")[2]).partition("#")[0] if "#" in n else n)
    model = lapa.Lapa(oracle.SIZES)
    lapa.SYSTEM.checkpoint.fill(model, lapa.of_jax(files, oracle.SIZES.language.heads))
    return model


def answer(model: lapa.Lapa, seed: int) -> tuple[list[int], np.ndarray, list[int]]:
    """Codes of the frame, logits of the seven steps, their tokens."""
    frame, ids, mask = oracle.given(seed)
    logits: list[torch.Tensor] = []
    model.action_head.register_forward_hook(lambda module, given, out: logits.append(out[0, -1]))
    with torch.no_grad():
        tokens = model.tokens(*model.prompt({"tokens": ids, "mask": mask, IMAGE: frame}))
        codes = model.vqgan(signed(frame))
    return codes[0].tolist(), torch.stack(logits).numpy(), tokens[0].tolist()


@pytest.mark.parametrize("seed", oracle.SEEDS)
def test_codes_logits_and_tokens_are_those_of_the_authors_in_jax(recorded, seed):
    want = recorded["answers"][seed]
    codes, logits, tokens = answer(original(recorded["shapes"]), seed)
    assert codes == want["codes"][:-1] and tokens == want["tokens"]
    assert np.abs(logits - np.array(want["logits"])).max() <= FP32 * np.array(want["logits"]).std()


@pytest.mark.parametrize("part", ["attention.wq", "feed_forward.w3", "ate.embedding", "encoder.MidBlock_0"])
def test_the_authors_answer_depends_on_every_part(recorded, part):
    """The control: of one tensor, the elements in another order."""
    want = recorded["answers"][0]
    codes, logits, _ = answer(original(
        recorded["shapes"], lambda n, w: w.flatten().roll(1).view_as(w) if part in n else w), 0)
    assert codes != want["codes"][:-1] or np.abs(logits - np.array(want["logits"])).max() > 100 * FP32


def test_sizes_are_those_of_the_authors():
    with torch.device("meta"):
        model = lapa.Lapa(lapa.Sizes())
        vqgan = VqganEncoder(VqganSizes())
    assert sum(p.numel() for p in model.transformer.layers.parameters()) / 1e9 == pytest.approx(6.476, abs=0.01)
    assert vqgan.features(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 256, 64)
