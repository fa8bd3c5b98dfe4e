from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, build, changed, follow, worst
from tests.zoo.plans import planned
from tests.zoo.precision import check_precision
from vlacompile.zoo import catalogue
from vlacompile.zoo.blocks.language_model import causal
from vlacompile.zoo.blocks.token_trie import TrieScores, trie
from vlacompile.zoo.systems.saycan import OBJECTS, PLACES, Sizes, skills, tokens_of

PROMPT = {"tokens", "mask"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build("saycan", tmp_path_factory.mktemp("saycan"))


def test_actions_are_those_of_pytorch(built):
    assert worst(follow(built)) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_the_chosen_skill_is_that_of_pytorch(built):
    policy, draw, inputs = built.policy, torch.Generator().manual_seed(3), dict(built.policy.example_inputs)
    scores: list[torch.Tensor] = []
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        for name in (None, "image", "tokens", "mask"):
            if name is not None:
                inputs[name] = changed(policy, name, draw)
            for source in inputs if name is None else [name]:
                session.write(source, inputs[source])
            session.step()
            want = policy.infer(**inputs)
            for output in ("useful", "possible"):
                np.testing.assert_allclose(session.read(output), want[output].numpy(), rtol=1e-4, atol=1e-4)
            assert session.read("chosen") == want["chosen"].numpy()
            scores.append(want["useful"])
    assert (scores[2] - scores[1]).abs().max() > 1 and torch.equal(scores[1], scores[0])


def test_skills_are_scored_per_prompt_and_only_what_sees_the_image_runs_with_it(built):
    assert built.table() == {"vision.image": ({"image"}, 1), "language": (PROMPT, 1),
                             "fusion.1": ({"image", "skill"}, 1), "fusion.2": (PROMPT | {"image"}, 1)}
    assert built.stage("fusion.2").weight_bytes == 0


def test_only_rows_of_the_head_that_skills_use_are_read(built):
    sizes, kinds = built.policy.observe.language.sizes, built.policy.observe.scores.kinds
    model = onnx.load(built.bundle.path / "stages" / "language.onnx", load_external_data=False)
    shapes = [sorted(i.dims) for i in model.graph.initializer]
    assert sorted([len(kinds), sizes.width]) in shapes and len(kinds) < sizes.vocabulary / 5
    assert shapes.count(sorted([sizes.vocabulary, sizes.width])) == 1, "the table of embeddings"


def test_films_of_a_skill_are_computed_once(tmp_path):
    found = planned("saycan", tmp_path)
    policy = catalogue.load("zoo:saycan@tiny").observe.policy
    rows = [r for r in found.stages if set(r.sources) == {"skill"}]
    assert sum(r.parameters for r in rows) >= sum(p.numel() for p in policy.films.parameters())


def test_every_skill_has_the_score_that_a_pass_of_its_own_gives(built):
    model, inputs = built.policy.observe, built.policy.example_inputs
    said = skills(OBJECTS[:3], PLACES[:2], 49)
    prompt = inputs["tokens"][:, :int(inputs["mask"].sum())]
    with torch.no_grad():
        got = model.scores(model.language, model.head, inputs["tokens"], inputs["mask"])
        want = []
        for text in said:
            ids = torch.tensor([tokens_of(text, model.language.sizes.vocabulary)])
            whole = torch.cat([prompt, ids], 1)
            hidden = model.language(model.language.embed_tokens(whole), *causal(torch.ones_like(whole) > 0))
            known = torch.log_softmax(model.head(hidden)[..., model.scores.kinds], -1)
            places = torch.arange(prompt.shape[1] - 1, whole.shape[1] - 1)
            kind = torch.searchsorted(model.scores.kinds, ids[0])
            want.append(known[0, places, kind].sum())
    assert len(said) == 49 and got.shape == (1, 49)
    torch.testing.assert_close(got[0], torch.stack(want), rtol=1e-5, atol=1e-5)
    assert got.std() > 1, "skills differ"
    means = TrieScores([tokens_of(t, model.language.sizes.vocabulary) for t in said], power=1.0)
    with torch.no_grad():
        per_token = means(model.language, model.head, inputs["tokens"], inputs["mask"])
    lengths = torch.tensor([len(t.split()) + 1 for t in said])
    torch.testing.assert_close(per_token, got / lengths, rtol=1e-5, atol=1e-5)


def test_a_trie_shares_beginnings_and_keeps_every_continuation():
    said = [tokens_of(s, 500) for s in skills(OBJECTS[:3], PLACES[:2], 49)]
    made = trie(said)
    assert [[made.tokens[n] for n in path] for path in made.paths] == said
    assert all(a == -1 if i == 0 else a == path[i - 1]
               for path in made.paths for i, a in enumerate(made.parents[n] for n in path))
    assert len(made.tokens) < 0.6 * sum(map(len, said))
    assert len(set(zip(made.tokens, made.parents, strict=True))) == \
        len(made.tokens)


def test_the_real_list_has_the_papers_number_of_skills():
    found = skills(OBJECTS, PLACES, Sizes().skills)
    assert len(set(found)) == len(found) == 551


@pytest.mark.full
def test_the_real_size_is_that_of_its_parts():
    policy = catalogue.load("zoo:saycan").observe
    assert sum(p.numel() for p in policy.language.parameters()) == 494_032_768
