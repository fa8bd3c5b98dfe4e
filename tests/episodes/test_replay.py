"""Episodes of a dataset beside a bundle and its policy: which frame gives which action, what is said of it, and
datasets that do not fit."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import recorded_policies
from tests.samples.lerobot_datasets import STATE, TASKS, grey, write
from tests.samples.recorded_policies import EXECUTE, STEPS
from tests.samples.small_tokenizers import word_piece
from vlacompile.episodes.differences import dimensions
from vlacompile.episodes.observations import chosen
from vlacompile.episodes.reference_policy import ReferencePolicy
from vlacompile.episodes.replay import replay_episodes
from vlacompile.frontends.dataset import open_dataset
from vlacompile.policy.policy import Policy
from vlart.bundle.directory import read_bundle
from vlart.errors import UsageError

pytest.importorskip("pyarrow", reason="pip install 'vlacompile[dataset]'")
pytest.importorskip("av", reason="pip install 'vlacompile[dataset]'")
LENGTHS = (7, 5)
WHERE = "tests.samples.recorded_policies"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "d", "v3.0", "png", LENGTHS)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """name of a function of recorded_policies -> path of its bundle."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(name: str):
        if name not in made:
            made[name] = vc.build(getattr(recorded_policies, name)(), out=folder / f"{name}.vlab").path
        return made[name]

    return bundle


def replayed(path, folder, policy: Policy | None = None, episodes=(0, 1), every: int = 1):
    bundle, recorded = read_bundle(path), open_dataset(folder)
    reference = None if policy is None else ReferencePolicy(policy, bundle.plan, "here")
    return replay_episodes(bundle, reference, recorded, chosen(recorded, [*episodes]), every, [].append)


def expected_of_chunks(episode: int, frame: int, step: int) -> np.ndarray:
    light = (grey(episode, frame) + grey(episode, frame) // 2) / 2 / 255
    return np.array([episode, frame]) + 0.1 * light + 0.1 * step


def test_each_frame_has_the_first_action_of_its_own_chunk_and_that_of_the_queue(bundles, dataset):
    for e in replayed(bundles("chunks"), dataset, recorded_policies.chunks()):
        frames = range(LENGTHS[e.index])
        assert (e.inferred, e.replans) == (tuple(frames), tuple(range(0, len(frames), EXECUTE)))
        assert e.recorded.tolist() == [[e.index, k] for k in frames] and e.task == TASKS[e.index] and not e.refused
        for k in frames:  # 0.05: what 0.01 of the noise may be
            assert np.abs(e.bundle.first[k] - expected_of_chunks(e.index, k, 0)).max() < 0.05
            queued = expected_of_chunks(e.index, k - k % EXECUTE, k % EXECUTE)
            assert np.abs(e.bundle.executed[k] - queued).max() < 0.05
        assert e.policy is not None
        for ours, theirs in ((e.bundle.first, e.policy.first), (e.bundle.executed, e.policy.executed)):
            assert np.abs(ours - theirs).max() < 1e-5


def test_noise_is_new_in_each_frame_and_the_same_for_both(bundles, dataset):
    found = replayed(bundles("chunks"), dataset, recorded_policies.chunks())[0]
    noise = [found.bundle.first[k] - expected_of_chunks(0, k, 0) for k in range(LENGTHS[0])]
    assert np.abs(np.diff(noise, axis=0)).max() > 1e-3
    again = replayed(bundles("chunks"), dataset)[0]
    assert np.array_equal(again.bundle.first, found.bundle.first) and again.policy is None


@pytest.mark.parametrize("every", [1, 3])
def test_a_history_is_of_consecutive_frames_whatever_is_inferred(bundles, dataset, every):
    """Also of the queue, which infers at every second frame."""
    def action(episode: int, frame: int, step: int) -> np.ndarray:
        seen = [np.tanh(0.1 * np.array([episode, max(frame - back, 0)])) for back in (2, 1, 0)]
        return seen[0] + 2 * seen[1] + 4 * seen[2] + step

    for e in replayed(bundles("looking_back"), dataset, recorded_policies.looking_back(), every=every):
        assert e.inferred == tuple(range(0, LENGTHS[e.index], every)) and e.policy is not None
        for found in (e.bundle, e.policy):
            for k in range(LENGTHS[e.index]):
                want = action(e.index, k, 0) if k % every == 0 else np.full(2, np.nan)
                np.testing.assert_allclose(found.first[k], want, atol=1e-5)
                np.testing.assert_allclose(found.executed[k], action(e.index, k - k % EXECUTE, k % EXECUTE), atol=1e-5)


def test_the_task_is_the_instruction(bundles, dataset):
    for e in replayed(bundles("told"), dataset, recorded_policies.told()):
        words = len(word_piece().encode(TASKS[e.index]).ids)
        assert e.policy is not None
        for found in (e.bundle, e.policy):
            np.testing.assert_allclose(found.first, e.recorded + words, atol=1e-5)


def test_what_the_host_spells_out_follows_the_task_and_the_recorded_state(bundles, dataset):
    for e in replayed(bundles("spelled"), dataset, recorded_policies.spelled()):
        assert e.policy is not None
        for found in (e.bundle, e.policy):
            np.testing.assert_allclose(found.first, e.recorded + len(TASKS[e.index]), atol=1e-5)


def test_without_the_policy_nobody_spells_it_out(bundles, dataset):
    with pytest.raises(UsageError, match='"tokens" cannot be computed from the bundle alone') as caught:
        replayed(bundles("spelled"), dataset)
    assert STATE in caught.value.why and "--source" in caught.value.fix


def test_differences_are_in_units_of_the_spread(bundles, dataset):
    """Of another policy: its second action is off by 0.5 everywhere, by 2 in one frame."""
    policy = recorded_policies.chunks()

    def moved(**inputs):
        off = 2.0 if inputs[STATE][0, 1] == 4 else 0.5
        return {"action": policy.observe(**inputs)["action"] + torch.tensor([0.0, off])}

    found = replayed(bundles("chunks"), dataset, vc.Policy("moved", moved, policy.sources, policy.example_inputs))
    still, off = dimensions(found, ("still", "off"), 10.0)
    recorded = [[e, k] for e, n in enumerate(LENGTHS) for k in range(n)]
    spread = np.std(recorded, axis=0, ddof=1)
    assert np.allclose([still.spread, off.spread], spread)
    assert still.first.bundle_policy < 1e-5 and off.first.bundle_policy == pytest.approx(0.75 / spread[1], 1e-3)
    assert off.worst == (pytest.approx(2 / spread[1], 1e-3), 0, 4)
    assert off.first.bundle_recorded < 0.1 < off.first.policy_recorded


def test_smoothness_is_of_the_executed_actions(bundles, dataset):
    """The recorded ones rise by one per frame: no jerk, and steps into a chunk like all others. The policy's chunks do
    otherwise, in the bundle as in PyTorch."""
    found = replayed(bundles("chunks"), dataset, recorded_policies.chunks())
    rising = dimensions(found, ("episode", "frame"), 10.0)[1]
    recorded, bundle, policy = (rising.smooth[whose] for whose in ("recorded", "bundle", "policy"))
    assert recorded.jerk == pytest.approx(0, abs=1e-9)
    assert recorded.jump == pytest.approx(1 / rising.spread) == pytest.approx(recorded.step)
    assert bundle.jerk == pytest.approx(policy.jerk, 1e-4) and bundle.jump == pytest.approx(policy.jump, 1e-4)
    assert bundle.jerk > 100 and bundle.jump != pytest.approx(bundle.step, 0.1)


def test_actions_that_libvlart_refuses_are_gaps_and_are_said(dataset, tmp_path):
    """Actions from 5.5 on are out of bounds: those of the chunk of frame 6."""
    recipe = tmp_path / "bounded.toml"
    recipe.write_text('name = "bounded"\ndescription = "of tests"\n[action]\nlow = [-9.0, -9.0]\nhigh = [9.0, 5.5]\n',
                      encoding="utf-8")
    path = vc.build(recorded_policies.chunks(), out=tmp_path / "b.vlab", recipe=str(recipe)).path
    found = replayed(path, dataset, recorded_policies.chunks(), episodes=[0])[0]
    assert [frame for frame, _ in found.refused] == [6] and "5.5" in found.refused[0][1]
    assert np.isnan(found.bundle.first[6]).all() and np.isnan(found.bundle.executed[6]).all()
    assert np.isfinite(found.bundle.first[:6]).all() and np.isfinite(found.policy.first).all()


# The verb

def test_the_verb_shows_a_table_and_draws(cli, bundles, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("verify", bundles("chunks"), "--dataset", dataset, "--source", f"{WHERE}:chunks")
    assert code == 0, err
    assert "jump into a chunk" in out and "the recording" in out
    assert "bundle - PyTorch" in out and "1 of 2 episodes, 7 frames" in out and f"{EXECUTE} of {STEPS} actions" in out
    assert sum(line.startswith("  replay ") for line in err.splitlines()) == 1 and max(map(len, out.splitlines())) <= 80
    root = ET.parse(tmp_path / "chunks-episodes.svg").getroot()
    curves = [p.get("d") for p in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(curves) == 3 * 2 * 2 and all(d.startswith("M") and "nan" not in d for d in curves)


def test_without_a_source_it_says_that_pytorch_is_missing(cli, bundles, dataset, tmp_path):
    code, out, _ = cli("verify", bundles("chunks"), "--dataset", dataset, "--picture", tmp_path / "p.svg")
    assert code == 0 and "no PyTorch: --source" in out and "bundle - PyTorch" not in out
    assert ">PyTorch<" not in (tmp_path / "p.svg").read_text(encoding="utf-8")


def test_json_has_every_number(cli, bundles, dataset, tmp_path):
    code, out, _ = cli("verify", bundles("chunks"), "--dataset", dataset, "--episode", 1, "--every", 2, "--picture",
                       tmp_path / "p.svg", "--json")
    found = json.loads(out)
    assert code == 0 and found["policy"] is None and [d["name"] for d in found["dimensions"]] == ["0", "1"]
    (episode,) = found["episodes"]
    assert episode["episode"] == 1 and episode["inferred"] == [0, 2, 4] and episode["policy"] is None
    assert set(found["dimensions"][0]["smooth"]) == {"bundle", "recorded"}
    assert episode["bundle"]["first"][1] == [None, None] and len(episode["bundle"]["executed"]) == 5


# What does not fit

def rename(folder, old: str, new: str) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(path.read_text(encoding="utf-8").replace(f'"{old}"', f'"{new}"'), encoding="utf-8")


def resize(folder, feature: str) -> None:
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["features"][feature]["shape"] = [7]
    path.write_text(json.dumps(info), encoding="utf-8")


WRONG = {
    "a camera is missing": (lambda d: rename(d, "observation.images.top", "observation.images.front"), (),
                            'the dataset has no "observation.images.top"', "observation.images.front"),
    "another state": (lambda d: resize(d, STATE), (), f'"{STATE}" of the dataset does not fit the policy', "[7]"),
    "another action": (lambda d: resize(d, "action"), (), "the recorded action does not fit the policy", "[7]"),
    "no action": (lambda d: rename(d, "action", "torque"), (), 'the dataset has no "action"', "torque"),
    "no episodes": (lambda d: (d / "meta" / "episodes.jsonl").write_text(""), (), "the dataset has no frames", "none"),
    "no such episode": (lambda d: None, ("--episode", 2), "the dataset has no episode 2", "it has 2, 0 to 1"),
    "no dataset": (lambda d: (d / "meta" / "info.json").unlink(), (), "is no LeRobot dataset", "No such file"),
    "another policy": (lambda d: None, ("--source", f"{WHERE}:of_another_camera"),
                       'the policy is not that of the bundle: input "observation.images.top"', "wrist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_four_lines(cli, bundles, tmp_path, case):
    damage, options, what, why = WRONG[case]
    folder = write(tmp_path / "d", "v2.1", "png", LENGTHS)
    damage(folder)
    code, out, err = cli("verify", bundles("chunks"), "--dataset", folder, "--picture", tmp_path / "p.svg", *options)
    lines = err[err.index("error: "):].splitlines()
    assert code and not out and len(lines) == 4 and what in lines[0] and why in lines[2]
    assert not (tmp_path / "p.svg").exists()


def test_options_of_a_replay_need_a_dataset(cli, bundles):
    code, _, err = cli("verify", bundles("chunks"), "--every", 2)
    assert code == 2 and "--every is given without a dataset" in err and "--dataset DATASET" in err
