from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.zoo.built import FP32, Built, build, changed, follow, worst
from tests.zoo.precision import check_precision
from vlacompile.frontends.transformer import added
from vlacompile.zoo import catalogue
from vlacompile.zoo.systems.gen_0 import ACT_HZ, IMAGE, NOW, PREVIOUS, SENSE_HZ, SENSED, TEXT, WINDOW, Gen0, Sizes

WORDS, SENSE, ACT = {"tokens", "mask"}, (IMAGE, SENSED), ("state", NOW)
EVERY_STAGE = 'name = "every-stage"\ndescription = "no stage merges into another"\n[stages]\nmin_flops = 0\n'
STEPS = 75  # which have more tokens than the ring has rows


@pytest.fixture(scope="module")
def policy() -> vc.Policy:
    return catalogue.load("zoo:gen-0@tiny")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("gen_0")
    (folder / "every.toml").write_text(EVERY_STAGE, encoding="utf-8")
    return build("gen-0", folder, recipe=str(folder / "every.toml"))


def test_actions_are_those_of_pytorch_over_episodes(built):
    assert worst(follow(built, steps=24, begins=(9, 15))) <= FP32


def test_a_smaller_precision_costs_what_it_states(built):
    check_precision(built)


def test_a_frame_is_encoded_once_the_instruction_s_keys_stay_and_the_rest_is_one_stage(built):
    carried = {built.bundle.plan.values[c.value].name for c in built.bundle.plan.carried}
    assert len(carried) == 4 + 2 * len(built.policy.observe.decoder.layers)
    assert built.table() == {"vision.image": ({IMAGE}, 1), "state": ({"state"}, 1), "language": (WORDS, 1),
                             "fusion": ({*SENSE, *ACT} | WORDS | carried, 1)}
    vision = built.policy.observe.vision
    encoder = sum(p.numel() for p in vision.encoder.parameters() if p.dim() == 2)
    patches = vision.embeddings.position_embedding.num_embeddings
    once = 2 * patches * (encoder + vision.embeddings.patch_embedding.weight.numel())
    assert once < built.stage("vision.image").flops < 2 * once


def moments(policy: vc.Policy, steps: int) -> list[dict[str, torch.Tensor]]:
    """What a robot writes per step: a frame at 10 Hz, the state and the time at 50 Hz."""
    draw, found = torch.Generator().manual_seed(5), []
    image, seen = policy.example_inputs[IMAGE], 0.0
    for step in range(steps):
        now = step / ACT_HZ
        if step % int(ACT_HZ / SENSE_HZ) == 0:
            image, seen = changed(policy, IMAGE, draw), max(0.0, now - 0.004)
        found.append({IMAGE: image, SENSED: torch.tensor([seen]), NOW: torch.tensor([now]),
                      "state": changed(policy, "state", draw)})
    return found


def test_the_streams_have_clocks_of_their_own(built):
    policy, given = built.policy, moments(built.policy, STEPS)
    words = {n: policy.example_inputs[n] for n in WORDS}
    with vc.Session(built.bundle.path, threads=1) as session, torch.no_grad():
        for name, value in words.items():
            session.write(name, value)
        carried: dict[str, torch.Tensor] = {}
        for step, inputs in enumerate(given):
            before = session.stats().runs()
            for name, value in inputs.items():
                session.write(name, value)
            session.step()
            ran = {n: k - before.get(n, 0) for n, k in session.stats().runs().items()}
            sees = step % int(ACT_HZ / SENSE_HZ) == 0
            assert ran == {"vision.image": int(sees), "state": 1, "language": int(step == 0), "fusion": 1}
            values = policy.infer(**words, **inputs, **carried)
            carried = policy.handed_on(values)
            np.testing.assert_allclose(session.read("action"), values["action"], atol=2e-4)


def whole_episode(model: Gen0, inputs: dict[str, torch.Tensor], given: list[dict[str, torch.Tensor]],
                  window: int = WINDOW) -> torch.Tensor:
    """The actions of an episode by one pass over all of its tokens, with no keys and values kept: a token sees those of
    which, at the end of its step, no `window` others were added since, if they are no later than it."""
    rows, times, end, reads = [], [], [], []
    latest, previous = -1.0, model.action_mean[None, None]
    actions = []
    for moment in given:
        x, when = model.tokens({**moment, PREVIOUS: previous})
        new = float(moment[SENSED]) > latest
        latest = max(latest, float(moment[SENSED]))
        count = x.shape[1] if new else 1
        reads.append(len(times))
        rows.append(x[:, :count])
        times += when[0, :count].tolist()
        end += [len(rows)] * count
        total = torch.tensor([sum(e <= step for e in end) for step in end])
        t, order = torch.tensor(times), torch.arange(len(times))
        kept = (order[None] < total[:, None]) & (order[None] >= total[:, None] - window) & (t[None] <= t[:, None])
        there = inputs["mask"][0]
        text = torch.ones(TEXT, TEXT, dtype=torch.bool).tril() & there | torch.eye(TEXT, dtype=torch.bool)
        seen = torch.cat([torch.cat([text, torch.zeros(TEXT, len(times), dtype=torch.bool)], 1),
                          torch.cat([there.expand(len(times), TEXT), kept], 1)])
        x = torch.cat([model.decoder.embed_tokens(inputs["tokens"]), *rows], 1)
        positions = torch.cat([torch.arange(-TEXT, 0), t * ACT_HZ])[None]
        x = model.decoder(x, added(seen[None]), positions)
        previous = model.head(x[:, TEXT + reads[-1]][:, None]) * model.action_std + model.action_mean
        actions.append(previous)
    return torch.cat(actions, 1)


def streamed(policy: vc.Policy, inputs: dict[str, torch.Tensor], given: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    actions, carried = [], {}
    for moment in given:
        values = policy.infer(**inputs, **moment, **carried)
        carried = policy.handed_on(values)
        actions.append(values["action"])
    return torch.cat(actions, 1)


def test_the_ring_is_a_pass_over_the_whole_episode(policy):
    assert STEPS + 4 * STEPS * SENSE_HZ / ACT_HZ > 1.3 * WINDOW
    given, words = moments(policy, STEPS), {n: policy.example_inputs[n] for n in WORDS}
    with torch.no_grad():
        found = streamed(policy, words, given)
        whole = whole_episode(policy.observe, words, given)
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
        other = whole_episode(policy.observe, words, given, window=WINDOW // 2)
    full = next(i for i in range(STEPS) if i + 1 + 4 * (i // 5 + 1) > WINDOW // 2)
    torch.testing.assert_close(found[:, :full], other[:, :full], atol=1e-4, rtol=1e-4)
    assert (found - other)[:, full:].abs().max() > 1e-3, "another window gives other actions"


def test_a_frame_that_came_before_adds_nothing(policy):
    """The same frame is written again, or an older one: the ring is as if it had not been."""
    words = {n: policy.example_inputs[n] for n in WORDS}
    given = moments(policy, 8)
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        older = [*given[:6], given[6] | {IMAGE: changed(policy, IMAGE, draw), SENSED: torch.tensor([0.01])}, given[7]]
        torch.testing.assert_close(streamed(policy, words, older), streamed(policy, words, given))
        newer = [*given[:6], given[6] | {IMAGE: changed(policy, IMAGE, draw), SENSED: torch.tensor([0.11])}, given[7]]
        assert (streamed(policy, words, newer) - streamed(policy, words, given)).abs().max() > 1e-3


def test_the_real_size_is_a_stand_in_of_300_m_parameters():
    with torch.device("meta"):
        assert 2.5e8 < sum(p.numel() for p in Gen0(Sizes()).parameters()) < 3.2e8
