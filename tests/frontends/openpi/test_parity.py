"""Compiled openpi checkpoints against openpi's code: what it answered, recorded by record.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.frontends.openpi.cases import CASES, SEEDS, noise, observation
from tests.frontends.openpi.checkpoints import RECORDED, write
from vlacompile.frontends.checkpoint_options import CheckpointOptions
from vlacompile.frontends.openpi.read import open_checkpoint, tokens_of
from vlacompile.phases.load_policy import load_policy

OPENPI = "openpi 15a9616"
SHARE = 1e-4  # of each action dimension's spread
VARIANTS = {"pi0_libero", "pi05_libero", "pi0_aloha_sim", "pi05_full_droid_finetune"}  # of what is built in every run
TOKENS, MASK, STATE = "observation.language.tokens", "observation.language.attention_mask", "observation.state"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """case -> (checkpoint, policy), each once."""
    made = {}

    def of(case: str):
        if case not in made:
            folder = write(case, tmp_path_factory.mktemp(case) / "29999")
            options = CheckpointOptions(openpi_config=case, tokenizer=str(folder.parent / "tokenizer.json"))
            made[case] = open_checkpoint(folder, options=options), load_policy(folder, options=options)
        return made[case]

    return of


@pytest.fixture(scope="module", params=variants(CASES, VARIANTS))
def built(request, loaded, tmp_path_factory):
    checkpoint, policy = loaded(request.param)
    bundle, seconds = timed(lambda: vc.build(policy, out=tmp_path_factory.mktemp("bundle") / "a.vlab"))
    return request.param, bundle, checkpoint, seconds


def in_pytorch(checkpoint, policy: vc.Policy, case: str, seed: int) -> np.ndarray:
    """[H,D] of the policy's own function."""
    seen = observation(case, seed)
    given = {f"observation.images.{n}": torch.from_numpy(f)[None] for n, f in seen["frames"].items()}
    given |= tokens_of(checkpoint, seen["instruction"], seen["state"]) | {
        STATE: torch.from_numpy(seen["state"])[None], "noise": torch.from_numpy(noise(RECORDED[case]["horizon"], seed))}
    return policy.observe(**{n: given[n] for n in policy.sources})["action"][0].numpy()


def actions(case: str, bundle: vc.Bundle, checkpoint, seed: int) -> np.ndarray:
    """[H,D] of a session that is given what a robot gives: frames, the instruction as text, the state."""
    seen, sources = observation(case, seed), {bundle.plan.values[s.value].name for s in bundle.plan.sources}
    with vc.Session(bundle.path) as session:
        for name, frame in seen["frames"].items():
            session.write(f"observation.images.{name}", frame[None])
        if checkpoint.settings.state == "prompt":  # which the host writes
            for name, tensor in tokens_of(checkpoint, seen["instruction"], seen["state"]).items():
                session.write(name, tensor.numpy())
        else:
            session.write_text(TOKENS, seen["instruction"].strip())
        if STATE in sources:
            session.write(STATE, seen["state"][None])
        session.write("noise", noise(RECORDED[case]["horizon"], seed))
        session.step()
        return np.stack([session.pop().copy() for _ in range(RECORDED[case]["horizon"])])


def furthest(got: np.ndarray, case: str, seed: int) -> float:
    """The largest difference, in shares of its dimension's spread over all recorded actions."""
    recorded = np.array(RECORDED[case]["actions"])
    return float((np.abs(got - recorded[seed]) / recorded.std((0, 1))).max())


@pytest.mark.parametrize("case", CASES)
def test_the_policy_is_openpis_code(loaded, case):
    checkpoint, policy = loaded(case)
    for seed in SEEDS:
        assert furthest(in_pytorch(checkpoint, policy, case, seed), case, seed) < SHARE


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_openpi(loaded, case):
    checkpoint, _ = loaded(case)
    for seed in SEEDS:
        seen = observation(case, seed)
        found = tokens_of(checkpoint, seen["instruction"], seen["state"])
        assert found[TOKENS][found[MASK]].tolist() == RECORDED[case]["ids"][seed]


def test_a_dataset_gives_the_tokens_that_the_host_writes(loaded):
    _, policy = loaded("pi05_droid")
    seen = observation("pi05_droid", 0)
    found = policy.encoding.encode(seen["instruction"], {STATE: seen["state"]})
    assert found[TOKENS][found[MASK]].tolist() == RECORDED["pi05_droid"]["ids"][0]
    assert policy.encoding.reads == {STATE: (8,)} and loaded("pi05_libero")[1].encoding is None


@pytest.mark.build
def test_actions_are_those_of_openpi(built, record_property):
    case, bundle, checkpoint, seconds = built
    found = [actions(case, bundle, checkpoint, seed) for seed in SEEDS]
    compared(record_property, bundle, share_of_spread(np.stack(found), np.array(RECORDED[case]["actions"])),
             files=OPENPI, policy=case, oracle=OPENPI, seconds=seconds)
    assert all(furthest(got, case, seed) < SHARE for seed, got in zip(SEEDS, found, strict=True))


@pytest.mark.build
def test_another_observation_fails_the_gate(built):
    case, bundle, checkpoint, _ = built
    assert furthest(actions(case, bundle, checkpoint, 1), case, 0) > 100 * SHARE
