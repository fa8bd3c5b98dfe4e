"""Compiled checkpoints against LeRobot itself: its preprocessor, its policy and its postprocessor, on the same noise."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.lerobot.checkpoints import write
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import open_checkpoint, tokens_of
from vlacompile.frontends.lerobot.vqbet import CHOICES, drawn_from
from vlacompile.verify.metrics import compare
from vlacompile.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
INSTRUCTION = "pick up the red cube"
CASES = {
    "act": ("act", {}),
    "ddim": ("diffusion", {}),
    "ddpm": ("diffusion", {"noise_scheduler_type": "DDPM", "num_inference_steps": 6, "num_train_timesteps": 100}),
    "smolvla": ("smolvla", {}),
    "vqbet": ("vqbet", {}),
    "vqbet-in-sequence": ("vqbet", {"sequentially_select": True}),
}


def observation(policy: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Raw frames and state as a robot has them, without batch dimension."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, feature in policy.config.input_features.items():
        if len(feature.shape) == 3:
            channels, height, width = feature.shape
            coarse = rng.integers(0, 256, (height // 16, width // 16, channels), dtype=np.uint8)
            out[name] = coarse.repeat(16, 0).repeat(16, 1)
        else:
            out[name] = rng.standard_normal(feature.shape).astype(np.float32)
    return out


def original_actions(folder: Path, policy: torch.nn.Module, seen: dict, noise: dict[str, torch.Tensor]) -> np.ndarray:
    """[executed steps, action_dim] from LeRobot's own code, one select_action after the other."""
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    steps = open_checkpoint(folder)[1].execute(policy.config)
    draws = drawn_from(noise[CHOICES]) if CHOICES in noise else contextlib.nullcontext()
    raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
           for n, a in seen.items()}
    policy.reset()
    extra = {"noise": noise["noise"]} if "noise" in noise else {}
    torch.manual_seed(1)  # what DDPM draws between steps: `noise_for` has drawn the same
    with draws, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To evaluate in the environment, your VQ-BeT")  # the weights are random
        return np.stack([post(policy.select_action(pre(raw | {"task": INSTRUCTION}), **extra))[0].numpy()
                         for _ in range(steps)])


def noise_for(bundle: vc.Bundle) -> dict[str, torch.Tensor]:
    """The sample to start from, and what torch.manual_seed(1) draws between steps."""
    values = (bundle.plan.values[s.value] for s in bundle.plan.sources)
    shapes = {v.name: v.type.dims for v in values if v.name.startswith("noise")}
    draw = torch.Generator().manual_seed(5)
    out = {n: (torch.rand if n == CHOICES else torch.randn)(shape, generator=draw) for n, shape in shapes.items()}
    if "noise.steps" in out:
        torch.manual_seed(1)
        for k in range(len(out["noise.steps"]) - 1):
            out["noise.steps"][k] = torch.randn(out["noise"].shape)[0]
    return out


def cases():
    for name in CASES:
        yield pytest.param(name, id=name)
    for name in ("act", "ddim", "smolvla"):
        yield pytest.param(f"{name}-real", id=f"{name}-real", marks=pytest.mark.full)


@pytest.fixture(scope="module", params=cases())
def built(request, tmp_path_factory):
    name = request.param.removesuffix("-real")
    kind, settings = CASES[name]
    settings = settings | ({"real": True} if name != request.param else {})
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    policy = write(kind, folder, **settings)
    return folder, policy, vc.build(folder, out=folder.parent / "a.vlab")


def compiled_actions(bundle: vc.Bundle, folder: Path, policy, seen: dict, noise: dict[str, torch.Tensor]) -> np.ndarray:
    checkpoint, family = open_checkpoint(folder)
    with vc.Session(bundle.path) as session:
        for name, array in seen.items():
            session.write(name, array[None])
        if checkpoint.tokenization is not None:
            for name, tensor in tokens_of(checkpoint, INSTRUCTION).items():
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


def test_loop_is_rolled_up(built):
    _, policy, bundle = built
    iterations = {"act": 1, "vqbet": 1, "smolvla": 10}.get(policy.config.type)
    if iterations is None:
        iterations = policy.config.num_inference_steps or policy.config.num_train_timesteps
    assert max(s.iterations for s in bundle.plan.stages) == iterations
