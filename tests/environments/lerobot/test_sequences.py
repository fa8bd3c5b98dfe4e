"""Policies that see several observations, tick after tick, against LeRobot's own queues: only the newest frame is
written, and every frame is encoded once."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.environments.lerobot.checkpoints import write
from tests.environments.lerobot.parity import INSTRUCTION, noise_for, observation
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.vqbet import CHOICES
from vlacompile.policy.drawn_from import drawn_from
from vlart.verify.metrics import compare
from vlart.verify.tolerances import tolerance

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
CASES = {
    "ddim": ("diffusion", {"n_action_steps": 4}),
    "ddim-cameras": ("diffusion", {"n_action_steps": 4, "cameras": ("top", "wrist"), "n_obs_steps": 3}),
    "ddim-encoders": ("diffusion", {"n_action_steps": 4, "cameras": ("top", "wrist"),
                                    "use_separate_rgb_encoder_per_camera": True}),
    "vqbet": ("vqbet", {}),
}
TICKS = 9


@pytest.fixture(scope="module", params=CASES)
def built(request, tmp_path_factory):
    kind, settings = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    policy = write(kind, folder, **settings)
    return folder, policy, vc.build(folder, out=folder.parent / "a.vlab")


def cameras(policy) -> list[str]:
    return [n.split(".")[-1] for n, f in policy.config.input_features.items() if len(f.shape) == 3]


def original_actions(folder, policy, seen: list[dict], noise: dict, every_tick: bool) -> np.ndarray:
    """[ticks, action_dim] by select_action; every_tick: with its queue of actions emptied before each."""
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    policy.reset()
    actions = []
    for raw in seen:
        if every_tick:
            policy._queues["action"].clear()
        replans = not policy._queues["action"]
        draws = drawn_from(uniform=noise[CHOICES]) if CHOICES in noise and replans else contextlib.nullcontext()
        batch = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
                 for n, a in raw.items()}
        extra = {"noise": noise["noise"]} if "noise" in noise else {}
        with draws, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "To evaluate in the environment, your VQ-BeT")  # the weights are random
            actions.append(post(policy.select_action(pre(batch | {"task": INSTRUCTION}), **extra))[0].numpy())
    return np.stack(actions)


def compiled_actions(session: vc.Session, seen: list[dict], noise: dict, every_tick: bool,
                     forget: bool = False, frames: int = 1000) -> np.ndarray:
    """The same from a bundle; forget: begin a new episode at every tick (the negative control); frames: how many
    observations before a replan are written."""
    session.reset()
    for name, tensor in noise.items():
        session.write(name, tensor.numpy())
    actions = []
    for raw in seen:
        if forget:
            session.reset()
        due = 0 if every_tick else session.queue().remaining
        for name, array in raw.items() if due < frames else ():
            session.write(name, array[None])
        session.step() if due == 0 else session.observe()
        actions.append(session.pop())
    return np.stack(actions)


@pytest.mark.parametrize("every_tick", [True, False], ids=["replan each tick", "replan when used up"])
def test_a_sequence_is_that_of_select_action(built, every_tick):
    folder, policy, bundle = built
    seen, noise = [observation(policy, seed) for seed in range(TICKS)], noise_for(bundle)
    want = original_actions(folder, policy, seen, noise, every_tick)
    with vc.Session(bundle.path) as session:
        for _ in range(2):  # the second episode begins anew
            got = compiled_actions(session, seen, noise, every_tick)
            assert compare(got, want).within(tolerance("f32", "chunk").limit(want)), compare(got, want)
            assert np.abs(got - want).max() <= 1e-4
        runs = session.stats().runs()
    replans = TICKS if every_tick else -(-TICKS // bundle.plan.action.execute_steps)
    assert {runs[f"vision.{c}"] for c in cameras(policy)} == {2 * TICKS}, "every frame of every camera once"
    assert runs["decode" if "decode" in runs else list(runs)[-1]] == 2 * replans


def test_frames_that_no_replan_sees_need_not_be_written(built):
    folder, policy, bundle = built
    seen, noise = [observation(policy, seed) for seed in range(TICKS)], noise_for(bundle)
    want = original_actions(folder, policy, seen, noise, False)
    frames = policy.config.n_obs_steps
    with vc.Session(bundle.path) as session:
        got = compiled_actions(session, seen, noise, False, frames=frames)
        assert np.abs(got - want).max() <= 1e-4
        fewer = compiled_actions(session, seen, noise, False, frames=frames - 1)
        assert np.abs(fewer - want).max() > 1e-3, "one frame less is another history"
        runs = session.stats().runs()
    if bundle.plan.action.execute_steps > frames:
        assert runs[f"vision.{cameras(policy)[0]}"] < 2 * TICKS


def test_another_history_fails_the_gate(built):
    folder, policy, bundle = built
    seen, noise = [observation(policy, seed) for seed in range(TICKS)], noise_for(bundle)
    want = original_actions(folder, policy, seen, noise, True)[-1:]
    with vc.Session(bundle.path) as session:
        swapped = [*seen[:-3], seen[-2], seen[-3], seen[-1]]  # the newest frame is right
        for wrong in (compiled_actions(session, swapped, noise, True),
                      compiled_actions(session, seen, noise, True, forget=True)):
            assert not compare(wrong[-1:], want).within(tolerance("f32", "chunk").limit(want))


def test_one_frame_is_encoded_per_replan(built):
    """Work of the encoder stages against that of LeRobot's encoder on all frames."""
    _, policy, bundle = built
    from torch.utils.flop_counter import FlopCounterMode

    config = policy.config
    names = cameras(policy)
    encoder = policy.diffusion.rgb_encoder if config.type == "diffusion" else policy.vqbet.rgb_encoder
    encoders = list(encoder) if isinstance(encoder, torch.nn.ModuleList) else [encoder] * len(names)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for e in encoders:
            e(torch.zeros(config.n_obs_steps, 3, 64, 64))
    work = sum(s.flops for s in bundle.plan.stages if s.name.startswith("vision."))
    assert 0.99 <= work * config.n_obs_steps / counter.get_total_flops() <= 1.01
