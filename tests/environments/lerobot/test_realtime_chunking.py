"""Real-time chunking that the compiler adds to a checkpoint, against LeRobot's own: its RTCProcessor in the policy, its
ActionQueue around it, on the same noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import INSTRUCTION, observation
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlacompile.frontends.lerobot.read import STATE, open_checkpoint, tokens_of

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="needs the environment lerobot: make test-lerobot")
DELAY, EXECUTE, HORIZON, REPLANS = 1, 3, 5, 5
RECIPE = f"""name = "rtc"
description = "real-time chunking"
[action]
consume = "realtime"
delay = {DELAY}
execute = {EXECUTE}
horizon = {HORIZON}
"""


@pytest.fixture(scope="module", params=variants(["smolvla", "pi0", "pi05"], ["pi05"]))
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    settings = {} if request.param == "smolvla" else {"chunk_size": 8, "n_action_steps": 8}
    policy = write(request.param, folder, **settings)
    recipe = folder.parent / "rtc.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with sized(request.param, False):
        return folder, policy, vc.build(folder, recipe=str(recipe), out=folder.parent / "a.vlab")


def lerobots(folder, policy, schedule: str, noises, guided: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(every chunk [replans,H,D], every action that the robot executes)"""
    with lerobot_importable():
        from lerobot.configs.types import RTCAttentionSchedule
        from lerobot.policies.factory import make_pre_post_processors
        from lerobot.policies.rtc.action_queue import ActionQueue
        from lerobot.policies.rtc.configuration_rtc import RTCConfig
        pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    config = RTCConfig(enabled=True, prefix_attention_schedule=RTCAttentionSchedule[schedule])
    policy.config.rtc_config = config if guided else None
    policy.init_rtc_processor()
    queue, chunks, actions = ActionQueue(config), [], []
    for seed, noise in enumerate(noises):
        raw = {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
               for n, a in observation(policy, seed).items()}
        left, delay = queue.get_left_over() if guided else None, DELAY if seed else 0
        chunk = policy.predict_action_chunk(pre(raw | {"task": INSTRUCTION}), noise=noise, inference_delay=DELAY,
                                            prev_chunk_left_over=left, execution_horizon=HORIZON)
        actions += [queue.get().numpy() for _ in range(delay)]
        done = post(chunk)[0]
        queue.merge(chunk[0], done, delay)
        actions += [queue.get().numpy() for _ in range(EXECUTE - delay)]
        chunks.append(done.numpy())
    return np.stack(chunks), np.stack(actions)


def compiled(bundle: vc.Bundle, folder, policy, noises) -> tuple[np.ndarray, np.ndarray]:
    checkpoint, family = open_checkpoint(folder)
    chunks, actions = [], []
    with vc.Session(bundle.path) as session:
        for seed, noise in enumerate(noises):
            seen = observation(policy, seed)
            told = seen.pop(STATE) if family.prompt is not None else None  # the state is in the prompt
            for name, array in seen.items():
                session.write(name, array[None])
            for name, tensor in tokens_of(checkpoint, INSTRUCTION, None if told is None else torch.from_numpy(told)
                                          ).items():
                session.write(name, tensor.numpy())
            session.write("noise", noise.numpy())
            delay = DELAY if seed else 0
            actions += [session.pop().copy() for _ in range(delay)]
            session.step()
            actions += [session.pop().copy() for _ in range(EXECUTE - delay)]
            chunks.append(session.read("action")[0].copy())
    return np.stack(chunks), np.stack(actions)


def noises_for(policy) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randn(1, policy.config.chunk_size, policy.config.max_action_dim, generator=draw)
            for _ in range(REPLANS)]


def test_chunks_and_actions_are_lerobots(built):
    folder, policy, bundle = built
    noises = noises_for(policy)
    want_chunks, want = lerobots(folder, policy, "LINEAR", noises)
    chunks, actions = compiled(bundle, folder, policy, noises)
    spread = want_chunks.std((0, 1))
    assert (np.abs(chunks - want_chunks) / spread).max() <= 1e-4
    assert (np.abs(actions - want) / spread).max() <= 1e-4
    other, _ = lerobots(folder, policy, "ZEROS", noises)
    assert (np.abs(chunks - other) / spread).max() > 1e-2, "control: another schedule of the weights"
    without, _ = lerobots(folder, policy, "LINEAR", noises, guided=False)
    assert (np.abs(chunks[0] - without[0]) / spread).max() <= 1e-4, "nothing guides the first chunk"
    assert (np.abs(chunks[1:] - without[1:]) / spread).max() > 1e-1, "control: no guidance"
