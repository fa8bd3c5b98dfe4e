"""Compiled OpenVLA and OpenVLA-OFT checkpoints against the authors' code: what it answered, recorded by record.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.frontends.openvla.cases import CASES, SEEDS, observation
from tests.frontends.openvla.checkpoints import RECORDED, options_of, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openvla.text import tokens_of
from vlacompile.phases.load_policy import load_policy

SHARE = 1e-4  # of each action dimension's spread
TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"
CAMERAS = [f"observation.images.{name}" for name in ("primary", "wrist", "wrist_2")]
VARIANTS = {"openvla-siglip", "oft-tokens", "oft-regression"}  # of what is built in every run


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """case -> (directory, policy), each once."""
    made = {}

    def of(case: str):
        if case not in made:
            folder = write(case, tmp_path_factory.mktemp(case) / "checkpoint")
            made[case] = folder, load_policy(folder, options=CheckpointOptions(**options_of(case)))
        return made[case]

    return of


@pytest.fixture(scope="module", params=variants(CASES, VARIANTS))
def built(request, loaded, tmp_path_factory):
    _, policy = loaded(request.param)
    return request.param, *timed(lambda: vc.build(policy, out=tmp_path_factory.mktemp("bundle") / "a.vlab"))


def in_pytorch(folder, policy: vc.Policy, case: str, seed: int) -> np.ndarray:
    """[H,D] of the policy's own function, tokens decoded as its decoder says."""
    seen = observation(case, seed)
    ids, mask = tokens_of(folder, seen["instruction"])
    given = {TOKENS: ids, MASK: mask, "observation.state": torch.from_numpy(seen["state"])[None],
             "noise": torch.from_numpy(seen["noise"])}
    given |= {n: torch.from_numpy(f)[None] for n, f in zip(CAMERAS, seen["frames"], strict=False)}
    (found,) = policy.observe(**{n: given[n] for n in policy.sources}).values()
    if policy.decoder is None:
        return found[0].numpy()
    lookup, affine = policy.decoder.steps
    rows = np.clip(lookup.direction * (found.numpy() - lookup.first), 0, len(lookup.tables[0]) - 1)
    values = np.array(lookup.tables[0])[rows].reshape(-1, len(lookup.tables))
    return values * affine.scale + affine.offset


def actions(case: str, bundle: vc.Bundle, seed: int) -> np.ndarray:
    """[H,D] of a session that is given what a robot gives: frames, the instruction as text, the state."""
    seen, sources = observation(case, seed), {bundle.plan.values[s.value].name for s in bundle.plan.sources}
    with vc.Session(bundle.path) as session:
        for name, frame in zip(CAMERAS, seen["frames"], strict=False):
            session.write(name, frame[None])
        session.write_text(TOKENS, seen["instruction"])
        for name, value in (("observation.state", seen["state"][None]), ("noise", seen["noise"])):
            if name in sources:
                session.write(name, value)
        session.step()
        return np.stack([session.pop().copy() for _ in range(len(RECORDED[case]["actions"][0]))])


def furthest(got: np.ndarray, case: str, seed: int) -> float:
    """The largest difference, in shares of its dimension's spread over all recorded actions."""
    recorded = np.array(RECORDED[case]["actions"])
    return float((np.abs(got - recorded[seed]) / recorded.std((0, 1))).max())


@pytest.mark.parametrize("case", CASES)
def test_the_policy_is_the_authors_code(loaded, case):
    folder, policy = loaded(case)
    for seed in SEEDS:
        assert furthest(in_pytorch(folder, policy, case, seed), case, seed) < SHARE


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_the_authors_processor(loaded, case):
    folder, _ = loaded(case)
    for seed in SEEDS:
        ids, mask = tokens_of(folder, observation(case, seed)["instruction"])
        assert ids[mask].tolist() == [*RECORDED[case]["ids"][seed], 29871]


@pytest.mark.build
def test_actions_are_those_of_the_authors_code(built, record_property):
    case, bundle, seconds = built
    found = [actions(case, bundle, seed) for seed in SEEDS]
    code = "OpenVLA c8f03f4" if CASES[case]["head"] is None else "OpenVLA-OFT 213c5ff"
    compared(record_property, bundle, share_of_spread(np.stack(found), np.array(RECORDED[case]["actions"])),
             files=code, policy=case, oracle=code, seconds=seconds)
    assert all(furthest(got, case, seed) < SHARE for seed, got in zip(SEEDS, found, strict=True))


@pytest.mark.build
def test_another_observation_fails_the_gate(built):
    case, bundle, _ = built
    assert furthest(actions(case, bundle, 1), case, 0) > 100 * SHARE


def test_without_what_the_adapters_learnt_the_gate_fails(tmp_path):
    """The control of what is added to the vision transformers' weights."""
    folder = write("oft-film", tmp_path / "checkpoint")
    file = next(folder.glob("vision_backbone--*"))
    kept = torch.load(file, weights_only=True)
    torch.save({n: t * (".lora_B." not in n) for n, t in kept.items()}, file)
    policy = load_policy(folder, options=CheckpointOptions(**options_of("oft-film")))
    assert furthest(in_pytorch(folder, policy, "oft-film", 0), "oft-film", 0) > 10 * SHARE
