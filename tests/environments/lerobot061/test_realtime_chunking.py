"""Real-time chunking that the compiler adds to a checkpoint of LeRobot 0.6.1, against its RTCProcessor and ActionQueue:
over a session, whose own queue counts the actions, and through the policy type "vlab", where LeRobot's does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.checkpoint_matrix import variants
from tests.environments.lerobot.checkpoints import sized, write
from tests.environments.lerobot.parity import INSTRUCTION, observation
from tests.environments.lerobot.test_realtime_chunking import EXECUTE, HORIZON, RECIPE, compiled, lerobots, noises_for
from tests.environments.lerobot061.programs import on_the_robot
from tests.environments.lerobot061.site import PLUGIN, install
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlart.errors import ConfigError, SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
SHARE = 1e-4  # of each action dimension's spread


@pytest.fixture(scope="module", params=variants(["smolvla", "pi0", "pi05"], ["pi0", "pi05"]))
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "pretrained_model"
    settings = {"num_steps": 4} if request.param == "smolvla" else {
        "chunk_size": 8, "n_action_steps": 8, "num_inference_steps": 4}
    policy = write(request.param, folder, **settings)
    recipe = folder.parent / "rtc.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with sized(request.param, False):
        yield folder, policy, vc.build(folder, recipe=str(recipe), out=folder.parent / "a.vlab")


def test_chunks_and_actions_are_lerobots(built):
    folder, policy, bundle = built
    noises = noises_for(policy)
    want_chunks, want = lerobots(folder, policy, "LINEAR", noises)
    chunks, actions = compiled(bundle, folder, policy, noises)
    spread = want_chunks.std((0, 1))
    assert (np.abs(chunks - want_chunks) / spread).max() <= SHARE
    assert (np.abs(actions - want) / spread).max() <= SHARE
    without, _ = lerobots(folder, policy, "LINEAR", noises, guided=False)
    assert (np.abs(chunks[1:] - without[1:]) / spread).max() > 1e-1, "control: no guidance"


@pytest.fixture
def plugin(monkeypatch):
    """The package, as it is where it is installed."""
    monkeypatch.syspath_prepend(PLUGIN)
    with lerobot_importable():
        import lerobot_policy_vlacompile.modeling_vlab as module

        yield module


def rtc(horizon: int = HORIZON, schedule: str = "LINEAR", most: float = 10.0):
    with lerobot_importable():
        from lerobot.configs.types import RTCAttentionSchedule
        from lerobot.policies.rtc.configuration_rtc import RTCConfig

    return RTCConfig(execution_horizon=horizon, prefix_attention_schedule=RTCAttentionSchedule[schedule],
                     max_guidance_weight=most)


def in_lerobots_loop(policy, noises, config, delays, prepare, finish) -> np.ndarray:
    """[replans,H,D] by the steps of LeRobot's RTC engine (rollout/inference/rtc.py), whose thread it is not: the delays
    are given, where the engine measures them. `finish`: a chunk's actions for the robot."""
    with lerobot_importable():
        from lerobot.policies.rtc.action_queue import ActionQueue
    policy.config.rtc_config = config
    policy.init_rtc_processor()
    policy.reset()
    queue, chunks = ActionQueue(config), []
    for seed, (noise, delay) in enumerate(zip(noises, delays, strict=True)):
        left = queue.get_left_over()
        chunk = policy.predict_action_chunk(prepare(seed), noise=noise, inference_delay=delay,
                                            prev_chunk_left_over=left)
        done = finish(chunk)[0]
        for _ in range(delay if seed else 0):
            queue.get()
        queue.merge(chunk[0], done, delay if seed else 0)
        for _ in range(EXECUTE - delay):
            queue.get()
        chunks.append(done.numpy())
    return np.stack(chunks)


@pytest.mark.parametrize(("horizon", "schedule"), [(HORIZON, "LINEAR"), (4, "EXP"), (3, "ONES"), (8, "ZEROS")])
def test_the_policy_type_vlab_continues_chunks_as_lerobots_own_policy(built, plugin, horizon, schedule):
    folder, original, bundle = built
    with lerobot_importable():
        from lerobot.policies.factory import make_pre_post_processors

        before, after = make_pre_post_processors(original.config, pretrained_path=str(folder))
    noises, delays, config = noises_for(original), (0, 1, 2, 1, 3), rtc(horizon, schedule)

    def raw(seed: int) -> dict:
        return {n: torch.from_numpy(a).movedim(-1, 0) / 255 if a.dtype == np.uint8 else torch.from_numpy(a)
                for n, a in observation(original, seed).items()} | {"task": INSTRUCTION}

    def batched(seed: int) -> dict:
        return {n: v[None] if isinstance(v, torch.Tensor) else [v] for n, v in raw(seed).items()}

    want = in_lerobots_loop(original, noises, config, delays, lambda seed: before(raw(seed)), after)
    made = sys.modules[plugin.VlabConfig.__module__].VlabConfig(bundle=str(bundle.path), threads=1,
                                                                checkpoint=str(folder))
    policy = plugin.VlabPolicy(made)
    got = in_lerobots_loop(policy, noises, config, delays, batched, lambda chunk: chunk)
    share = (np.abs(got - want) / want.std((0, 1))).max()
    assert share <= SHARE, share
    other = in_lerobots_loop(policy, noises, rtc(1, "ZEROS"), delays, batched, lambda chunk: chunk)
    assert (np.abs(other - want) / want.std((0, 1)))[1:].max() > 1e-2, "control: another schedule of the weights"
    policy.reset()
    with pytest.raises(SourceError, match="is not of this policy"):
        policy.predict_action_chunk(batched(0), prev_chunk_left_over=torch.from_numpy(want[0]))


def test_what_a_bundle_was_not_built_for_is_refused(built, plugin):
    _, _, bundle = built
    policy = plugin.VlabPolicy(plugin.VlabConfig(bundle=str(bundle.path), threads=1))
    assert policy.supports_rtc()
    policy.config.rtc_config = rtc(most=5.0)
    with pytest.raises(ConfigError, match="compiled with action.max_guidance = 10, LeRobot asks for 5"):
        policy.init_rtc_processor()


def test_lerobot_rollout_executes_chunks_that_continue_each_other(built, tmp_path):
    """LeRobot's own engine, with its thread and its measured delays: what it sends depends on this machine's load, so
    only that it goes on is tested, chunk after chunk."""
    folder, original, bundle = built
    draw, site = np.random.default_rng(0), tmp_path / "site"
    frames = {f"camera.{n.rpartition('.')[2]}": draw.integers(0, 256, (4, *f.shape[1:], 3), np.uint8)
              for n, f in original.config.image_features.items()}
    site.mkdir()
    done, sent = on_the_robot(install(site), tmp_path, frames, original.config.robot_state_feature.shape[0],
                              f"--policy.bundle={bundle.path}", f"--policy.checkpoint={folder}", "--inference.type=rtc",
                              f"--inference.rtc.execution_horizon={HORIZON}", f"--task={INSTRUCTION}", "--duration=5")
    assert done.returncode == 0, done.stderr
    assert len(sent) > 3 * original.config.chunk_size and np.isfinite([a for _, a in sent]).all()
