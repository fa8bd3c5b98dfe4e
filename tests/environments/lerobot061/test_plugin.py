"""LeRobot 0.6.1's own programs with the policy type "vlab": found without a flag, on a robot and in an environment that
are plugins too. The actions are those of a session in the test's own process, to the last bit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from unittest import TestCase

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.environments.lerobot061.programs import on_the_robot, run
from tests.environments.lerobot061.site import PLUGIN, install
from tests.samples import policies, ssh_keys
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot.importing import lerobot_importable
from vlart.bundle.directory import read_bundle
from vlart.bundle.signature import sign
from vlart.errors import ConfigError, SignatureError, SourceError

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
STEPS, EXECUTE, ACTIONS = 9, 6, 7
STATE, CAMERAS = "observation.state", ("base", "wrist")
IMAGE = "observation.images."
COMPILER = ("jinja2", "networkx", "onnx", "onnx_ir", "onnxscript", "rich", "scipy")  # what it needs beside PyTorch


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> vc.Bundle:
    """Two cameras and nine joints, the instruction known; six of ten actions are executed."""
    whole = policies.late_fusion()
    sources = {n: vc.Source("static") if "language" in n else s for n, s in whole.sources.items()}
    policy = vc.Policy("late_fusion", whole.observe, sources, whole.example_inputs, execute=EXECUTE)
    return vc.build(policy, out=tmp_path_factory.mktemp("plugin") / "late_fusion.vlab")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    frames = {f"{IMAGE}{c}": draw.integers(0, 256, (STEPS, 32, 32, 3), np.uint8) for c in CAMERAS}
    return {STATE: draw.standard_normal((STEPS, 9)).astype(np.float32)} | frames


def executed(bundle: vc.Bundle, recorded, places: list[int]) -> np.ndarray:
    """The actions of a session that is given the observations at these places, one per tick."""
    out = []
    with vc.Session(bundle.path, threads=1) as session:
        for place in places:
            if session.queue().due or not session.queue().chunks:
                for name, array in recorded.items():
                    session.write(name, array[None, place % STEPS])
                session.step()
            out.append(session.pop())
    return np.stack(out)


def replayed(site: Path, folder: Path, bundle: vc.Bundle, recorded, *arguments: str, names=CAMERAS):
    """lerobot-rollout with a robot whose cameras have these names."""
    joints = {f"joint.joint_{i}.pos": recorded[STATE][:, i] for i in range(9)}
    cameras = {f"camera.{given}": recorded[f"{IMAGE}{c}"] for c, given in zip(CAMERAS, names, strict=True)}
    return on_the_robot(site, folder, joints | cameras, ACTIONS, f"--policy.bundle={bundle.path}", "--duration=2",
                        *arguments)


def test_it_is_found_without_a_flag_and_needs_nothing_of_the_compiler(bundle, site, tmp_path):
    """LeRobot runs it where what the compiler is made of is missing."""
    done = run(site, tmp_path, "", code=f"""
import importlib.abc, sys
from vlacompile.frontends.lerobot.importing import lerobot_importable
with lerobot_importable():
    import lerobot.policies.factory, lerobot.policies.rtc.modeling_rtc
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {COMPILER!r}:
                raise ModuleNotFoundError(name)

    before = set(sys.modules)
    sys.meta_path.insert(0, Missing())
    register_third_party_plugins()
    config = PreTrainedConfig.get_choice_class("vlab")(bundle={str(bundle.path)!r})
    policy = lerobot.policies.factory.get_policy_class("vlab")(config=config)
    lerobot.policies.factory.make_pre_post_processors(config, dataset_stats=None)
print(*sorted(set(sys.modules) - before))
""")
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "lerobot_policy_vlacompile.modeling_vlab" in loaded
    of_the_compiler = ("vlacompile.compiler", "vlacompile.frontends", "vlacompile.phases", "torch.export", "torch.onnx")
    assert not [m for m in loaded if m.startswith((*COMPILER, *of_the_compiler)) and m != "onnxruntime"]


def test_lerobot_eval_takes_the_actions_of_a_session(bundle, site, recorded, tmp_path):
    np.savez(tmp_path / "episode.npz", state=recorded[STATE],
             **{f"camera.{c}": recorded[f"{IMAGE}{c}"] for c in CAMERAS})
    done = run(site, tmp_path, "lerobot_eval", "--policy.type=vlab", f"--policy.bundle={bundle.path}",
               "--policy.threads=1", "--env.type=recorded", "--env.episode=episode.npz", f"--env.actions={ACTIONS}",
               "--env.done=done.jsonl", "--eval.n_episodes=2", "--eval.batch_size=1", "--output_dir=out")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "done.jsonl").read_text().splitlines()]
    assert [place for place, _ in lines] == [*range(STEPS)] * 2
    want = executed(bundle, recorded, [*range(STEPS)])
    assert np.array_equal(np.array([a for _, a in lines], np.float32), np.concatenate([want, want]))


def test_lerobot_rollout_sends_the_actions_of_a_session(bundle, site, recorded, tmp_path):
    done, sent = replayed(site, tmp_path, bundle, recorded)
    assert done.returncode == 0, done.stderr
    places = [place for place, _ in sent]
    assert len(places) >= EXECUTE + 1 and places == [*range(1, len(places) + 1)]
    assert np.array_equal(np.array([a for _, a in sent], np.float32), executed(bundle, recorded, places))


def test_cameras_of_other_names(bundle, site, recorded, tmp_path):
    """Refused by LeRobot before the robot moves, or with the names given, taken."""
    names = ("front", "hand")
    done, sent = replayed(site, tmp_path, bundle, recorded, names=names)
    assert done.returncode != 0 and not sent and "Visual feature mismatch" in done.stderr
    renamed = json.dumps({f"{IMAGE}{given}": f"{IMAGE}{c}" for given, c in zip(names, CAMERAS, strict=True)})
    done, sent = replayed(site, tmp_path, bundle, recorded,
                          f"--policy.rename_map={renamed}", names=names)
    assert done.returncode == 0, done.stderr
    want = executed(bundle, recorded, [place for place, _ in sent])
    assert np.array_equal(np.array([a for _, a in sent], np.float32), want)


def test_real_time_chunking_needs_a_bundle_that_was_built_for_it(bundle, site, recorded, tmp_path):
    done, sent = replayed(site, tmp_path, bundle, recorded, "--inference.type=rtc")
    assert done.returncode != 0 and not sent
    assert "RTC inference is not supported by policy type 'vlab'" in done.stderr


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    with lerobot_importable():
        import lerobot_policy_vlacompile.modeling_vlab as module

        yield module


@pytest.fixture
def policy(plugin, bundle):
    return plugin.VlabPolicy(plugin.VlabConfig(bundle=str(bundle.path), threads=1))


def batch(recorded, **changed) -> dict:
    """One observation as LeRobot hands it to a policy. changed: {end of a name: tensor, or None: it is missing}"""
    seen = {n: torch.from_numpy(a[:1]) if a.dtype != np.uint8 else torch.from_numpy(a[:1]).permute(0, 3, 1, 2) / 255
            for n, a in recorded.items()}
    seen |= {next((n for n in seen if n.endswith(end)), f"{IMAGE}{end}"): value for end, value in changed.items()}
    return {n: v for n, v in seen.items() if v is not None}


DISAGREE = {
    "a camera is missing": ({"wrist": None}, 'no "observation.images.wrist"', "add it to the robot"),
    "a camera has another name": ({"wrist": None, "hand": torch.zeros(1, 3, 32, 32)},
                                  "left over is observation.images.hand",
                                  """--policy.rename_map='{"observation.images.hand": "observation.images.wrist"}'"""),
    "another size": ({"base": torch.zeros(1, 3, 48, 64)}, "base is 48 x 64 (height x width), the bundle takes 32 x 32",
                     "width=32 and height=32"),
    "grey": ({"base": torch.zeros(1, 1, 32, 32)}, "has 1 channels, the bundle takes 3", "RGB"),
    "fewer joints": ({"state": torch.zeros(1, 6)}, "observation.state has 6 numbers, the bundle takes 9",
                     "same joints"),
    "two robots": ({n: torch.zeros(2, 3, 32, 32) for n in CAMERAS} | {"state": torch.zeros(2, 9)},
                   "2 observations at once", "--eval.batch_size=1"),
    "all that disagrees": ({"wrist": None, "state": torch.zeros(1, 6)}, "wrist", "add it"),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_the_first_observation_must_agree_with_the_bundle(policy, recorded, case):
    changed, message, fix = DISAGREE[case]
    for act in (policy.select_action, policy.predict_action_chunk):
        with pytest.raises(SourceError) as error:
            act(batch(recorded, **changed))
        assert "does not give what the bundle takes" in error.value.what
        assert message in error.value.why and fix in error.value.fix, error.value
    if case.startswith("all"):
        assert "6 numbers" in error.value.why
    assert policy.select_action(batch(recorded)).shape == (1, ACTIONS), "and can be mended"


def test_a_chunk_of_a_queue_is_not_continued(policy, recorded):
    seen = batch(recorded)
    chunk = policy.predict_action_chunk(seen, inference_delay=0, prev_chunk_left_over=None)
    with pytest.raises(ConfigError, match="was not built for real-time chunking"):
        policy.predict_action_chunk(seen, inference_delay=2, prev_chunk_left_over=chunk[0, 3:])
    with TestCase().assertLogs("lerobot_policy_vlacompile") as logged:
        assert not policy.supports_rtc()
    assert 'consume = "realtime"' in logged.output[0]


def test_noise_is_taken_where_it_is_given(plugin, tmp_path):
    whole = policies.flow()
    path = vc.build(whole, out=tmp_path / "flow.vlab").path
    policy = plugin.VlabPolicy(plugin.VlabConfig(bundle=str(path), threads=1, seed=1))
    seen = {n: t for n, t in whole.example_inputs.items() if n != "noise"}
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal(whole.example_inputs["noise"].shape, np.float32))
    first, again, drawn = (policy.predict_action_chunk(seen, noise=n) for n in (noise, noise, None))
    assert torch.equal(first, again) and not torch.equal(first, drawn)


def test_joints_of_a_dataset_have_the_order_of_the_training(plugin, bundle, monkeypatch):
    module = sys.modules[plugin.VlabConfig.__module__]
    config = plugin.VlabConfig(bundle=str(bundle.path))
    features = {"action": {"names": ["a.pos", "b.pos"]}, STATE: {"names": ["b.pos", "a.pos"]}}
    config.set_dataset_feature_metadata(features)  # this bundle's checkpoint names none
    monkeypatch.setattr(module, "joint_names", lambda bundle: ["a.pos", "b.pos"])
    with pytest.raises(ConfigError, match=r"observation.state has another order"):
        config.set_dataset_feature_metadata(features)


@pytest.mark.skipif(bool(ssh_keys.MISSING), reason=ssh_keys.MISSING)
def test_signers_are_asked_as_by_every_program(plugin, bundle, tmp_path):
    """A bundle that nobody signed is refused, and so are engines that no signature binds, unless they are said to be of
    this board."""
    path = Path(shutil.copytree(bundle.path, tmp_path / "pick.vlab"))
    key = ssh_keys.new_key(tmp_path)
    signers = str(ssh_keys.allow(tmp_path / "signers", key))

    def opened(**options) -> None:
        plugin.VlabPolicy(plugin.VlabConfig(bundle=str(path), threads=1, signers=signers, **options)).session.close()

    with pytest.raises(SignatureError, match="is not signed"):
        opened()
    sign(read_bundle(path), key)
    opened()
    (path / "engines").mkdir()
    (path / "engines/a.plan").write_bytes(b"made by nobody knows whom")
    with pytest.raises(SignatureError, match="bound by no signature"):
        opened(native_code=True)
    opened(keep_engines=True)
