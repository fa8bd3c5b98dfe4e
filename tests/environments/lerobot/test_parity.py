"""Compiled checkpoints against LeRobot itself: its preprocessor, its policy and its postprocessor, on the same
noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed, variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import compiled_actions, noise_for, observation, original_actions
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
CASES = {
    "act": ("act", {}),
    "ddim": ("diffusion", {}),
    "ddpm": ("diffusion", {"noise_scheduler_type": "DDPM", "num_inference_steps": 6, "num_train_timesteps": 100}),
    "groot": ("groot", {"embodiments": 2}),
    "groot-other-body": ("groot", {"embodiments": 2, "tag": "so100"}),
    "pi0": ("pi0", {}),
    "pi0-empty-camera": ("pi0", {"empty_cameras": 1, "num_inference_steps": 3}),
    "pi05": ("pi05", {}),
    "smolvla": ("smolvla", {}),
    "vqbet": ("vqbet", {}),
    "vqbet-in-sequence": ("vqbet", {"sequentially_select": True}),
}
VARIANTS = {"groot-other-body", "pi0-empty-camera"}  # of what is tried in every run


def cases():
    yield from variants(CASES, VARIANTS)
    for name in ("act", "ddim", "smolvla"):
        yield pytest.param(f"{name}-real", id=f"{name}-real", marks=pytest.mark.full)


@pytest.fixture(scope="module", params=cases())
def built(request, tmp_path_factory):
    name = request.param.removesuffix("-real")
    kind, settings = CASES[name]
    settings = settings | ({"real": True} if name != request.param else {})
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    policy = write(kind, folder, **settings)
    with sized(kind, settings.get("real", False)):
        return folder, policy, *timed(lambda: vc.build(folder, out=folder.parent / "a.vlab"))


def test_actions_are_those_of_lerobot(built, request, record_property):
    folder, policy, bundle, seconds = built
    wants, gots = [], []
    for seed in range(3):
        seen, noise = observation(policy, seed), noise_for(bundle)
        wants.append(original_actions(folder, policy, seen, noise))
        gots.append(compiled_actions(bundle, folder, policy, seen, noise))
        limit = tolerance("f32", "chunk").limit(wants[-1])
        assert compare(gots[-1], wants[-1]).within(limit), compare(gots[-1], wants[-1])
    compared(record_property, bundle, share_of_spread(np.concatenate(gots), np.concatenate(wants)),
             files="LeRobot 0.4.4", policy=request.node.callspec.id, oracle="LeRobot 0.4.4", seconds=seconds)


def test_another_observation_fails_the_gate(built):
    folder, policy, bundle, _ = built
    noise = noise_for(bundle)
    want = original_actions(folder, policy, observation(policy, 0), noise)
    got = compiled_actions(bundle, folder, policy, observation(policy, 1), noise)
    assert not compare(got, want).within(tolerance("f32", "chunk").limit(want))


def test_a_policy_that_is_driven_with_temporal_ensembling_is(tmp_path):
    folder = tmp_path / "pretrained_model"
    policy = write("act", folder, temporal_ensemble_coeff=0.01, n_action_steps=1)
    bundle = vc.build(folder, out=tmp_path / "a.vlab")
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    policy.reset()
    want, got, newest = [], [], []
    with vc.Session(bundle.path) as session, torch.no_grad():
        for seed in range(6):
            seen = observation(policy, seed)
            raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
                   for n, a in seen.items()}
            want.append(post(policy.select_action(pre(raw)))[0].numpy())
            for name, array in seen.items():
                session.write(name, array[None])
            session.step()
            newest.append(session.read("action")[0, 0].copy())
            got.append(session.pop().copy())
    assert np.abs(np.stack(got) - np.stack(want)).max() < 1e-4
    assert np.abs(np.stack(newest) - np.stack(want)).max() > 1e-3, "the chunks differ, or nothing was ensembled"


def test_fewer_evaluations_within_a_budget(tmp_path):
    """A Diffusion Policy of ten DDIM steps, in an error that a person chose: how far libvlart then is from LeRobot."""
    policy = write("diffusion", tmp_path / "pretrained_model", num_inference_steps=10,
                   num_train_timesteps=100, prediction_type="sample")
    recipe = tmp_path / "budget.toml"
    recipe.write_text('name = "budget"\ndescription = ""\n[loop]\nmax_action_error = 0.2\n', encoding="utf-8")
    folder = tmp_path / "pretrained_model"
    bundle = vc.build(folder, recipe=str(recipe), out=tmp_path / "a.vlab")
    sampling = next(s.sampling for s in bundle.plan.stages if s.sampling is not None)
    assert sampling.written == 10 > sampling.iterations and 0 < sampling.error <= 0.2
    wants, gots = [], []
    for seed in range(3):
        seen, noise = observation(policy, seed), noise_for(bundle)
        wants.append(original_actions(folder, policy, seen, noise))
        gots.append(compiled_actions(bundle, folder, policy, seen, noise))
    want, got = np.concatenate(wants), np.concatenate(gots)
    rms = np.sqrt(((got - want) ** 2).mean(0)) / want.std(0)
    assert 0 < rms.max() < 4 * sampling.error


def test_loop_is_rolled_up(built):
    _, policy, bundle, _ = built
    iterations = {"act": 1, "vqbet": 1, "smolvla": 10}.get(policy.config.type)
    if policy.config.type == "groot":
        iterations = policy._groot_model.action_head.num_inference_timesteps
    if iterations is None:
        iterations = policy.config.num_inference_steps or policy.config.num_train_timesteps
    found = [s.sampling.iterations for s in bundle.plan.stages if s.sampling is not None]
    assert found == ([iterations] if iterations > 1 else [])
