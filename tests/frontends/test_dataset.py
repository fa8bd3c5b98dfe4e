"""LeRobot datasets as calibration sets: the right frame of the right episode, and everything by which they may not
fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import vlacompile as vc
from tests.samples import recorded_policies
from tests.samples.lerobot_datasets import STATE, TASKS, TOP, grey, picture, write
from tests.samples.small_tokenizers import word_piece
from vlacompile.frontends.dataset import open_dataset, read_frames
from vlacompile.phases.calibrate import calibrated
from vlacompile.policy.sample_inputs import golden_inputs
from vlart.bundle.directory import GOLDEN_FILE, read_bundle
from vlart.errors import CalibrationError
from vlart.verify.frames import read_frames as read_golden

pytest.importorskip("pyarrow", reason="pip install 'vlacompile[dataset]'")
pytest.importorskip("av", reason="pip install 'vlacompile[dataset]'")
KINDS = [(version, camera) for version in ("v2.1", "v3.0") for camera in ("png", "jpeg", "video")]
OFF = {"png": 0, "jpeg": 2, "video": 6}  # grey levels that a codec may change, next to no edge


def policy(history: int = 1, **changed) -> vc.Policy:
    """Reads the camera and the state; the brightness of the newest frame is the action."""
    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        frame, state = inputs[TOP].float(), inputs[STATE]
        if history > 1:
            frame, state = frame[:, -1], state.mean(1)
        return {"action": (frame.mean((1, 2))[:, :2] / 255 + state).reshape(1, 1, 2)}

    lead = (1,) if history == 1 else (1, history)
    seen = vc.Source("observation", history=history)
    return vc.Policy("grey", observe, {TOP: seen, STATE: seen} | changed.pop("sources", {}), {
        TOP: torch.full((*lead, *picture(0, 0).shape), 90, dtype=torch.uint8), STATE: torch.ones(*lead, 2),
    } | changed.pop("example", {}))


def observations(folder, of: vc.Policy | None = None) -> tuple[dict, ...]:
    return calibrated(of or policy(), folder, (), [].append)[0].calibration


@pytest.mark.parametrize(("version", "camera"), KINDS)
def test_frames_are_those_of_their_episode_and_time(tmp_path, version, camera):
    dataset = open_dataset(write(tmp_path / "d", version, camera))
    assert (dataset.length, dataset.fps, [e.length for e in dataset.episodes]) == (10, 10, [6, 4])
    for episode in dataset.episodes:
        numbers = [episode.length - 1, 0, 2]
        found, task = read_frames(dataset, episode, numbers, [TOP, STATE])
        assert task == TASKS[episode.index] and found[STATE].tolist() == [[episode.index, k] for k in numbers]
        assert found[TOP].dtype == np.uint8 and found[TOP].shape == (3, 32, 48, 3)
        for got, k in zip(found[TOP], numbers, strict=True):
            off = np.abs(got.astype(int) - picture(episode.index, k))
            assert np.median(off) <= OFF[camera] and off[:, [5, 40]].max() <= OFF[camera]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_observations_are_spread_over_all_episodes(tmp_path, version):
    found = observations(write(tmp_path / "d", version, "png", lengths=(40, 20, 4)))
    states = [tuple(x[STATE][0].tolist()) for x in found]
    assert len(states) == 32 and states == sorted(states) and {e for e, _ in states} == {0, 1, 2}
    assert all(np.array_equal(x[TOP][0].numpy(), picture(*map(int, s))) for x, s in zip(found, states, strict=True))


def test_a_history_stays_within_its_episode(tmp_path):
    found = observations(write(tmp_path / "d", "v3.0", "png"), policy(history=3))
    states = {tuple(x[STATE][0, -1].tolist()): x[STATE][0].tolist() for x in found}
    assert states[0.0, 4.0] == [[0, 2], [0, 3], [0, 4]] and states[1.0, 0.0] == [[1, 0]] * 3


def test_what_the_host_encodes_is_of_the_frame_s_task_and_state(tmp_path):
    found = observations(write(tmp_path / "d", "v3.0", "png"), recorded_policies.spelled())
    assert [x["tokens"][0].tolist() for x in found] == [
        [len(TASKS[e]), 10 * e, 10 * k] for e, n in ((0, 6), (1, 4)) for k in range(n)]


def test_a_build_is_calibrated_on_the_dataset_and_says_so(tmp_path):
    folder = write(tmp_path / "d", "v2.1", "png")
    bundle = vc.build(policy(), out=tmp_path / "a.vlab", calibrate=folder)
    origin = read_bundle(bundle.path).manifest["provenance"]
    assert origin["recorded_observations"] == 10 and len(origin["calibrated_on"].pop("sha256")) == 64
    assert origin["calibrated_on"] == {"version": "v2.1", "episodes": 2, "frames": 10, "taken": 10}


def test_the_task_of_an_episode_is_its_instruction(tmp_path):
    original = word_piece()
    base, task = policy(), vc.Source("task")

    def observe(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"action": base.observe(**{n: inputs[n] for n in (TOP, STATE)})["action"]
                + (inputs["tokens"] * inputs["mask"]).float().mean()}

    told = replace(base, observe=observe, sources={**base.sources, "tokens": task, "mask": task}, example_inputs={
        **base.example_inputs, "tokens": torch.zeros(1, 24, dtype=torch.int64),
        "mask": torch.zeros(1, 24, dtype=torch.bool)}, texts={
            "tokens": vc.Text(original.to_str(), "mask", vc.Fit(pad=0), examples=TASKS)})
    for found in observations(write(tmp_path / "d", "v3.0", "png"), told):
        ids = found["tokens"][found["mask"]].tolist()
        assert ids == original.encode(TASKS[int(found[STATE][0, 0])]).ids


# Every way in which it may not fit

def break_info(folder, **changed) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


WRONG = {
    "no directory": (lambda d: (d / "meta" / "info.json").unlink(), "is no LeRobot dataset"),
    "another version": (lambda d: break_info(d, codebase_version="v1.6"), "a dataset of version v1.6 is not read"),
    "no episodes": (lambda d: (d / "meta" / "episodes.jsonl").write_text(""), "the dataset has no frames"),
    "an episode's rows are gone": (lambda d: next(d.rglob("*.parquet")).unlink(), "cannot be read"),
    "rows are cut": (lambda d: [p.write_bytes(p.read_bytes()[:100]) for p in d.rglob("*.parquet")], "cannot be read"),
    "a video is cut": (lambda d: [p.write_bytes(p.read_bytes()[:100]) for p in d.rglob("*.mp4")], "cannot be decoded"),
    "a video is gone": (lambda d: [p.unlink() for p in d.rglob("*.mp4")], "cannot be decoded"),
    "more frames than rows": (lambda d: (d / "meta" / "episodes.jsonl").write_text(
        '{"episode_index": 0, "length": 60, "tasks": []}'), "of episode 0 is missing"),
    "more rows than pictures": (lambda d: break_info(d, fps=400), "a video has no frame at a time of the rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_damaged_is_refused(tmp_path, case):
    damage, what = WRONG[case]
    folder = write(tmp_path / "d", "v2.1", "video")
    damage(folder)
    if case == "more rows than pictures":  # as if the video had been written at another rate
        folder = write(tmp_path / "e", "v2.1", "video", lengths=(8, 8))
        short = next((tmp_path / "d").rglob("episode_000001.mp4"))
        next(folder.rglob("episode_000001.mp4")).write_bytes(short.read_bytes())
    with pytest.raises(CalibrationError) as caught:
        observations(folder)
    assert what in caught.value.what and all(map(str.strip, (caught.value.where, caught.value.why, caught.value.fix)))


def test_inputs_are_found_under_the_names_that_lerobot_gives_them(tmp_path):
    """As `vlacompile export --lerobot` writes those of a policy that has its own."""
    dataset = open_dataset(write(tmp_path / "d", "v2.1", "png"))
    short = {TOP.rpartition(".")[2]: TOP, STATE.rpartition(".")[2]: STATE}
    dataset.require({name: dataset.shape(feature) for name, feature in short.items()})
    found, _ = read_frames(dataset, dataset.episodes[0], [1, 3], [*short])
    want, _ = read_frames(dataset, dataset.episodes[0], [1, 3], [*short.values()])
    assert found.keys() == short.keys() and all((found[n] == want[f]).all() for n, f in short.items())


def test_a_dataset_without_an_input_of_the_policy_is_refused(tmp_path):
    other = policy(sources={"observation.images.wrist": vc.Source("observation")},
                   example={"observation.images.wrist": torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})
    with pytest.raises(CalibrationError, match='the dataset has no "observation.images.wrist"') as caught:
        observations(write(tmp_path / "d", "v2.1", "png"), other)
    assert TOP in caught.value.why


def test_frames_of_another_size_are_refused(tmp_path):
    other = policy(example={TOP: torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})
    with pytest.raises(CalibrationError, match="does not fit the policy") as caught:
        observations(write(tmp_path / "d", "v2.1", "png"), other)
    assert "[32, 48, 3]" in caught.value.why and "[8, 8, 3]" in caught.value.why


def test_an_environment_gets_what_reads_datasets(cli, monkeypatch):
    got = []
    monkeypatch.setattr("vlacompile.frontends.environments.Environment.install",
                        lambda self, progress, also: got.extend(also))
    assert cli("frontends", "--install", "huggingface")[0] == 0
    assert {"pyarrow", "av"} <= {*got}


def test_a_build_refuses_what_is_no_dataset_before_anything_else(cli, tmp_path):
    code, _, err = cli("build", "nowhere", "--calibrate", tmp_path)
    assert code == 11 and f"{tmp_path} is no LeRobot dataset" in err


def test_what_reads_a_dataset_is_not_installed(tmp_path, monkeypatch):
    folder = write(tmp_path / "d", "v3.0", "png")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(CalibrationError, match="pyarrow is needed") as caught:
        observations(folder)
    assert "pip install 'vlacompile[dataset]'" in caught.value.fix


def test_golden_frames_are_observations_of_the_dataset(tmp_path):
    """Each frame's inputs are recorded, the edges apart; one source at a time still changes."""
    folder = write(tmp_path / "d", "v2.1", "png")
    bundle = vc.build(policy(), out=tmp_path / "a.vlab", calibrate=folder)
    golden = [f for f in read_golden(bundle.path / GOLDEN_FILE) if not f.label.startswith("edges")]
    states = [tuple(map(int, f.writes[STATE][0])) for f in golden]
    lights = [int(f.writes[TOP][0, 0, 0, 0]) for f in golden]
    every = [(e, k) for e, n in enumerate((6, 4)) for k in range(n)]
    assert {*states} <= {*every} and {*lights} <= {grey(e, k) for e, k in every}
    assert golden[0].label == "recorded" and len({*states}) > 2 and {e for e, _ in states} == {0, 1}
    alone = next(i for i, f in enumerate(golden) if f.label == f"{STATE} changed")
    assert states[alone] != states[alone - 1] and lights[alone] == lights[alone - 1]


def test_an_instruction_and_its_mask_change_together_in_golden_frames():
    """Also where two instructions are equally long, and of one instruction alone the words are shuffled."""
    sources = {"tokens": vc.Source("task"), "mask": vc.Source("task"), "state": vc.Source("observation")}

    def observation(words: list[int], state: float) -> dict[str, torch.Tensor]:
        ids = torch.tensor([words + [0] * (6 - len(words))])
        return {"tokens": ids, "mask": ids > 0, "state": torch.tensor([[state]])}

    told = [observation([1, 2, 3], 0.0), observation([4, 5, 6], 1.0), observation([7, 8, 9, 5], 2.0)]
    for seed in range(3):
        frames = golden_inputs(sources, observation([9], 9.0), 6, seed, told)
        assert all(any(torch.equal(x["tokens"], t["tokens"]) and torch.equal(x["mask"], t["mask"]) for t in told)
                   for _, x in frames)
        assert len({tuple(x["tokens"].ravel().tolist()) for _, x in frames}) > 1
    alone = [x for _, x in golden_inputs(sources, told[0], 6, 0, told[:1])]
    assert len({tuple(x["tokens"].ravel().tolist()) for x in alone}) > 1
