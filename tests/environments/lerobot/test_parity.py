"""Compiled checkpoints against LeRobot itself: its preprocessor, its policy and its postprocessor, on the same
noise."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.environments.lerobot.checkpoints import eagle_runs, sized, write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import STATE, open_checkpoint, tokens_of
from vlacompile.frontends.lerobot.vqbet import CHOICES, drawn_from
from vlacompile.verify.metrics import compare
from vlacompile.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
INSTRUCTION = "pick up the red cube"
CHUNKS = ("pi0", "pi05")  # their select_action draws the noise itself
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


def observation(policy: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Raw frames and state as a robot has them, without batch dimension."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, feature in policy.config.input_features.items():
        if ".empty_camera_" in name:
            continue
        if len(feature.shape) == 3:
            channels, height, width = feature.shape
            coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), channels), dtype=np.uint8)
            out[name] = coarse.repeat(16, 0).repeat(16, 1)[:height, :width].copy()
        else:
            out[name] = rng.standard_normal(feature.shape).astype(np.float32)
    return out


def original_actions(folder: Path, policy: torch.nn.Module, seen: dict, noise: dict[str, torch.Tensor]) -> np.ndarray:
    """[executed steps, action_dim] from LeRobot's own code, one select_action after the other where that can be given
    the noise."""
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    for step in pre.steps:  # LeRobot 0.4.4 does not save it, and would download
        if hasattr(step, "tokenizer_assets_repo"):
            step.tokenizer_assets_repo = policy.config.tokenizer_assets_repo
    steps = open_checkpoint(folder)[1].execute(policy.config)
    draws = (drawn_from(noise[CHOICES]) if CHOICES in noise else eagle_runs() if policy.config.type == "groot" else
             contextlib.nullcontext())
    raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
           for n, a in seen.items()}
    policy.reset()
    if policy.config.type in CHUNKS:
        chunk = policy.predict_action_chunk(pre(raw | {"task": INSTRUCTION}), noise=noise["noise"])
        return post(chunk)[0, :steps].numpy()
    extra = {"noise": noise["noise"]} if "noise" in noise and policy.config.type != "groot" else {}
    torch.manual_seed(1)  # what GR00T begins with and DDPM draws between steps: `noise_for` has drawn the same
    with draws, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To evaluate in the environment, your VQ-BeT")  # the weights are random
        return np.stack([post(policy.select_action(pre(raw | {"task": INSTRUCTION}), **extra))[0].numpy()
                         for _ in range(steps)])


def noise_for(bundle: vc.Bundle) -> dict[str, torch.Tensor]:
    """The sample to start from, and what torch.manual_seed(1) draws between steps; GR00T begins with such a draw."""
    values = (bundle.plan.values[s.value] for s in bundle.plan.sources)
    shapes = {v.name: v.type.dims for v in values if v.name.startswith("noise")}
    draw = torch.Generator().manual_seed(5)
    out = {n: (torch.rand if n == CHOICES else torch.randn)(shape, generator=draw) for n, shape in shapes.items()}
    if bundle.plan.name == "groot":
        out["noise"] = torch.randn(shapes["noise"], generator=torch.Generator().manual_seed(1))
    if "noise.steps" in out:
        torch.manual_seed(1)
        for k in range(len(out["noise.steps"]) - 1):
            out["noise.steps"][k] = torch.randn(out["noise"].shape)[0]
    return out


def cases():
    for name in CASES:
        yield pytest.param(name, id=name, marks=pytest.mark.full if name in VARIANTS else ())
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
        return folder, policy, vc.build(folder, out=folder.parent / "a.vlab")


def compiled_actions(bundle: vc.Bundle, folder: Path, policy, seen: dict, noise: dict[str, torch.Tensor]) -> np.ndarray:
    checkpoint, family = open_checkpoint(folder)
    with vc.Session(bundle.path) as session:
        told = seen.get(STATE) if family.prompt is not None else None  # the state is in the prompt
        for name, array in seen.items():
            if told is None or name != STATE:
                session.write(name, array[None])
        if checkpoint.tokenization is not None:
            state = None if told is None else torch.from_numpy(told)
            for name, tensor in tokens_of(checkpoint, INSTRUCTION, state).items():
                session.write(name, tensor.numpy())
        for name, tensor in noise.items():
            session.write(name, tensor.numpy())
        session.step()
        return np.stack([session.pop() for _ in range(family.execute(policy.config))])


def test_actions_are_those_of_lerobot(built):
    folder, policy, bundle = built
    for seed in range(3):
        seen, noise = observation(policy, seed), noise_for(bundle)
        want = original_actions(folder, policy, seen, noise)
        got = compiled_actions(bundle, folder, policy, seen, noise)
        assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)


def test_another_observation_fails_the_gate(built):
    folder, policy, bundle = built
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
    _, policy, bundle = built
    iterations = {"act": 1, "vqbet": 1, "smolvla": 10}.get(policy.config.type)
    if policy.config.type == "groot":
        iterations = policy._groot_model.action_head.num_inference_timesteps
    if iterations is None:
        iterations = policy.config.num_inference_steps or policy.config.num_train_timesteps
    found = [s.sampling.iterations for s in bundle.plan.stages if s.sampling is not None]
    assert found == ([iterations] if iterations > 1 else [])
