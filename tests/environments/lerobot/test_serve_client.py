"""LeRobot's own code as the client: its RobotClient against our gRPC server, its scripts' functions with the policy
type "vlab", its tokenizer beside ours. The actions are those of a session in the test's own process."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import field, make_dataclass
from unittest import mock

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.environments.lerobot import checkpoints
from tests.environments.lerobot061.site import PLUGIN
from tests.samples import policies
from tests.serve.serving import episode_of, in_process
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot import importing
from vlacompile.frontends.lerobot.importing import lerobot_importable

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot"].is_here(),
                                reason="LeRobot has an environment of its own: make test-lerobot")
CAMERAS = ("base", "wrist")
JOINTS = tuple(f"joint_{i}.pos" for i in range(9))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    """Two cameras and a state, the instruction known; six of ten actions are executed."""
    whole = policies.late_fusion()
    sources = {n: vc.Source("static") if "language" in n else s for n, s in whole.sources.items()}
    policy = vc.Policy("late_fusion", whole.observe, sources, whole.example_inputs, execute=6)
    return vc.build(policy, out=tmp_path_factory.mktemp("serve") / "late_fusion.vlab")


def episode(length: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    whole = episode_of(policies.late_fusion(), length, seed)
    return [{k: v for k, v in o.items() if "language" not in k} for o in whole]


class EpisodeRobot:
    """LeRobot's robot interface over a recorded episode."""

    observation_features = {**dict.fromkeys(JOINTS, float), **dict.fromkeys(CAMERAS, (32, 32, 3))}
    action_features = {f"action_{i}": float for i in range(7)}

    def __init__(self, observations):
        self.observations, self.place, self.sent = observations, 0, []

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def get_observation(self) -> dict:
        observation = self.observations[self.place]
        return {**dict(zip(JOINTS, map(float, observation["observation.state"][0]), strict=True)),
                **{c: observation[f"observation.images.{c}"][0] for c in CAMERAS}}

    def send_action(self, action: dict) -> dict:
        self.sent.append(list(action.values()))
        return action


@contextlib.contextmanager
def robot_client_module():
    """lerobot.async_inference.robot_client; camera drivers, which it imports, may be missing. It logs to ./logs."""
    names = (*importing.NOT_CALLED, "cv2", "pyrealsense2")
    with mock.patch.object(importing, "NOT_CALLED", names), lerobot_importable():
        import lerobot.async_inference.robot_client as module

        yield module


def test_lerobots_robot_client_replays_an_episode(bundle, tmp_path, monkeypatch):
    pytest.importorskip("grpc", reason="LeRobot's client and our server need it: pip install 'vlacompile[serve]'")
    from tests.serve.grpc_running import grpc_server

    monkeypatch.chdir(tmp_path)
    observations = episode(4)
    robot = EpisodeRobot(observations)
    with robot_client_module() as module, grpc_server(bundle, wait_s=0.2) as running:
        from lerobot.async_inference.configs import RobotClientConfig

        config = RobotClientConfig(policy_type="act", pretrained_name_or_path="somewhere", robot=mock.Mock(),
                                   actions_per_chunk=10, server_address=f"127.0.0.1:{running.place[1]}", fps=200,
                                   chunk_size_threshold=0.0, aggregate_fn_name="latest_only")
        with mock.patch.object(module, "make_robot_from_config", lambda _: robot):
            client = module.RobotClient(config)
        assert client.start()
        receiver = threading.Thread(target=client.receive_actions, daemon=True)
        receiver.start()
        client.start_barrier.wait()
        got = []
        for place in range(len(observations)):
            robot.place = place
            client.latest_action = -1  # a chunk of its own for every observation
            client.control_loop_observation("pick it up")
            end = time.monotonic() + 20
            while not client.actions_available():
                assert time.monotonic() < end, "no actions came"
                time.sleep(0.005)
            robot.sent.clear()
            while client.actions_available():
                client.control_loop_action()
            got.append(np.array(robot.sent, np.float32))
        client.stop()
        receiver.join(10)
    want = in_process(bundle, observations)
    assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True)) and not np.array_equal(got[0], got[1])


@pytest.fixture
def scripts(monkeypatch):
    """What LeRobot's scripts do with --policy.discover_packages_path=... --policy.type=vlab --policy.bundle=...:
    call(*arguments) -> (policy, preprocessor, postprocessor)."""
    monkeypatch.syspath_prepend(PLUGIN)
    with lerobot_importable():
        from lerobot.configs import parser
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    pipeline = make_dataclass("Pipeline", [("policy", PreTrainedConfig | None, field(default=None))])

    def call(*arguments):
        plugin = "--policy.discover_packages_path=lerobot_policy_vlacompile"
        monkeypatch.setattr(sys, "argv", ["lerobot-eval", plugin, "--policy.type=vlab", *arguments])
        found = []

        def main(cfg):
            found.append(cfg.policy)

        main.__annotations__["cfg"] = pipeline  # those of this file are text
        with lerobot_importable():
            parser.wrap()(main)()
            policy = get_policy_class(found[0].type)(config=found[0])
            return policy, *make_pre_post_processors(found[0], dataset_stats=None)

    return call


def as_environment(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """As LeRobot's environments and robots hand it on: images are floats [C,H,W] in [0, 1]."""
    return {n: torch.from_numpy(a[0]).permute(2, 0, 1).float() / 255 if a.dtype == np.uint8 else torch.from_numpy(a[0])
            for n, a in observation.items()}


def test_the_policy_type_vlab_selects_the_actions_of_a_session(bundle, scripts):
    policy, before, after = scripts(f"--policy.bundle={bundle.path}", "--policy.threads=1")
    assert isinstance(policy, torch.nn.Module) and policy.config.type == "vlab"
    assert policy.config.image_features["observation.images.base"].shape == (3, 32, 32)
    assert policy.config.action_feature.shape == (7,) and policy.config.robot_state_feature.shape == (9,)
    observations = episode(14)
    for _ in range(2):  # an episode after `reset` is the first again
        policy.reset()
        got = [after(policy.select_action(before(as_environment(o)))).numpy()[0] for o in observations]
        chunks = in_process(bundle, [observations[0], observations[6], observations[12]])
        want = [*chunks[0][:6], *chunks[1][:6], *chunks[2][:2]]
        assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))
    chunk = policy.predict_action_chunk(before(as_environment(observations[3])))
    assert chunk.shape == (1, 10, 7) and np.array_equal(chunk[0].numpy(), in_process(bundle, [observations[3]])[0])


def test_an_episode_of_the_policy_type_vlab_is_not_averaged_with_the_last(tmp_path, scripts):
    whole = policies.late_fusion()
    sources = {n: vc.Source("static") if "language" in n else s for n, s in whole.sources.items()}
    (tmp_path / "r.toml").write_text('name = "r"\ndescription = "r"\n[action]\nconsume = "ensemble"\n')
    made = vc.build(vc.Policy("late_fusion", whole.observe, sources, whole.example_inputs),
                    recipe=str(tmp_path / "r.toml"), out=tmp_path / "e.vlab")
    policy, before, after = scripts(f"--policy.bundle={made.path}", "--policy.threads=1")
    episodes = []
    for seed in (0, 1, 0):
        policy.reset()
        episodes.append([after(policy.select_action(before(as_environment(o)))).numpy()[0] for o in episode(4, seed)])
    assert np.array_equal(episodes[0], episodes[2]) and not np.array_equal(episodes[0], episodes[1])
    first = in_process(made, episode(1, 1))[0][0]
    np.testing.assert_allclose(episodes[1][0], first, atol=1e-6)


@pytest.mark.full
def test_the_policy_type_vlab_takes_every_observation_into_its_histories(tmp_path, scripts):
    whole = policies.remember()
    policy = vc.Policy("remember", whole.observe, whole.sources, whole.example_inputs, execute=3)
    path = vc.build(policy, out=tmp_path / "remember.vlab").path
    observations = episode_of(policies.remember(), 7)
    loaded, *_ = scripts(f"--policy.bundle={path}", "--policy.threads=1")
    batches = [{n: t[None] for n, t in as_environment(o).items()} for o in observations]
    got = [loaded.select_action(batch).numpy()[0] for batch in batches]
    want = []
    with vc.Session(path, threads=1) as session:
        for i, o in enumerate(observations):
            for name, array in o.items():
                session.write(name, array)
            session.step() if i % 3 == 0 else session.observe()
            want.append(session.pop())
    assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.full
def test_a_policy_of_type_vlab_is_saved_and_loaded(bundle, scripts, tmp_path):
    policy, *_ = scripts(f"--policy.bundle={bundle.path}", "--policy.threads=1")
    policy.save_pretrained(tmp_path)
    again = type(policy).from_pretrained(tmp_path)
    assert again.config.bundle == str(bundle.path.resolve()) and again.config.threads == 1
    assert type(policy).from_pretrained(bundle.path).config.bundle == str(bundle.path)


def test_what_is_missing_is_said(bundle, scripts):
    from vlart.errors import ConfigError, SourceError
    from vlart.serve.refusal import Refusal

    policy, before, _ = scripts(f"--policy.bundle={bundle.path}", "--policy.threads=1")
    seen = before(as_environment(episode(1)[0]))
    with pytest.raises(ConfigError, match="needs a bundle"):
        type(policy.config)()
    with pytest.raises(ConfigError, match="is not a kind of noise"):
        type(policy.config)(bundle=str(bundle.path), noise="pink")
    with pytest.raises(SourceError, match='there is no "observation.images.wrist"'):
        policy.select_action({k: v for k, v in seen.items() if "wrist" not in k})
    with pytest.raises(SourceError, match="gives 2 observations at once"):
        policy.select_action({**seen, "observation.state": torch.zeros(2, 9)})
    with pytest.raises(Refusal, match="NaN"):
        policy.select_action({**seen, "observation.state": torch.full((1, 9), torch.nan)})


def test_instructions_are_tokenised_as_transformers_does(tmp_path):
    """Ours needs the package tokenizers alone."""
    from vlacompile.frontends.lerobot.instructions import read_instructions
    from vlacompile.frontends.lerobot.read import MASK, TOKENS, open_checkpoint, tokens_of
    from vlart.serve.observations import Input
    from vlart.serve.refusal import Refusal

    path = tmp_path / "checkpoint"
    checkpoints.write("smolvla", path)
    ours, (checkpoint, _) = read_instructions(path, {TOKENS: None, MASK: None}), open_checkpoint(path)
    for text in ("pick up the red cube", "", "öffne die Schublade", "open the drawer " * 40, "two\nlines\n"):
        want, got = {n: t.numpy() for n, t in tokens_of(checkpoint, text).items()}, ours(text)
        assert all(np.array_equal(got[n], want[n]) and got[n].dtype == want[n].dtype for n in want), text
    ids = Input(TOKENS, "task", "i64", (1, 8))
    short = read_instructions(path, {TOKENS: ids, MASK: ids})
    got, want = short("open"), tokens_of(checkpoint, "open")
    assert all(np.array_equal(got[n], want[n].numpy()[:, :8]) for n in want)
    with pytest.raises(Refusal, match="too long"):
        short("open the drawer " * 40)
