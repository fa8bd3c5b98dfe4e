"""LeRobot checkpoint directories that are damaged or do not fit: refused from their files alone, without LeRobot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlacompile.errors import SourceError
from vlacompile.frontends.lerobot.checkpoint import Normalisation, read_checkpoint
from vlacompile.frontends.lerobot.normalise import normalise, unnormalise
from vlacompile.frontends.load import load_policy

FEATURES = {"observation.images.top": {"type": "VISUAL", "shape": [3, 8, 8]},
            "observation.state": {"type": "STATE", "shape": [2]}}
ACTION = {"action": {"type": "ACTION", "shape": [2]}}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MIN_MAX"}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The files of a checkpoint, with nothing that only the model itself reads."""
    config = {"type": "act", "input_features": FEATURES, "output_features": ACTION}
    statistics = {f"{n}.{s}": torch.ones(2) for n in ("observation.state", "action") for s in ("mean", "std", "max")}
    statistics |= {f"{n}.min": torch.zeros(2) for n in ("observation.state", "action")}
    statistics |= {f"observation.images.top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")}
    save_file(statistics, tmp_path / "statistics.safetensors")
    save_file({"model.w": torch.ones(1)}, tmp_path / "model.safetensors")

    def step(name: str, features: dict) -> dict:
        return {"registry_name": name, "config": {"features": features, "norm_map": MODES, "eps": 1e-8},
                "state_file": "statistics.safetensors"}

    pre = [{"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
           {"registry_name": "to_batch_processor", "config": {}}, step("normalizer_processor", FEATURES | ACTION)]
    write(tmp_path / "config.json", config)
    write(tmp_path / "policy_preprocessor.json", {"name": "policy_preprocessor", "steps": pre})
    write(tmp_path / "policy_postprocessor.json", {"steps": [step("unnormalizer_processor", ACTION)]})
    return tmp_path


def write(path: Path, document) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def change(path: Path, edit) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    write(path, document)


def read(path: Path):
    return read_checkpoint(path, frozenset(), frozenset())


def test_a_whole_checkpoint_is_read(checkpoint):
    found = read(checkpoint)
    assert found.images() == ["observation.images.top"] and found.action.shape == (2,)
    assert {n: v.mode for n, v in found.normalise.items()} == {
        "observation.images.top": "MEAN_STD", "observation.state": "MEAN_STD", "action": "MIN_MAX"}


def test_cameras_are_renamed_back_to_the_robots_names(checkpoint):
    change(checkpoint / "policy_preprocessor.json", lambda d: d["steps"][0]["config"].update(
        rename_map={"observation.images.front": "observation.images.top"}))
    assert read(checkpoint).robot_name("observation.images.top") == "observation.images.front"


DAMAGES = {
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "has no weights"),
    "broken json": (lambda c: (c / "config.json").write_text("{", encoding="utf-8"), "config.json cannot be read"),
    "json is a list": (lambda c: (c / "config.json").write_text("[]", encoding="utf-8"), "cannot be read"),
    "no features": (lambda c: change(c / "config.json", lambda d: d.pop("input_features")), "what goes in and out"),
    "no action": (lambda c: change(c / "config.json", lambda d: d.update(output_features={})), "what goes in and out"),
    "steps are no list": (lambda c: write(c / "policy_preprocessor.json", {"steps": 3}), "lists no processor steps"),
    "an unknown step": (lambda c: change(c / "policy_preprocessor.json", lambda d: d["steps"].append(
        {"registry_name": "image_crop_resize_processor"})), "is not known"),
    "statistics file lost": (lambda c: (c / "statistics.safetensors").unlink(), "cannot be read"),
    "statistics truncated": (lambda c: (c / "statistics.safetensors").write_bytes(
        (c / "statistics.safetensors").read_bytes()[:50]), "cannot be read"),
    "statistics of the state missing": (lambda c: save_file(
        {f"observation.images.top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")}, c / "statistics.safetensors"),
        'statistics of "observation.state" are missing: mean, std'),
    "an unknown normalisation": (lambda c: change(c / "policy_preprocessor.json", lambda d: d["steps"][2]["config"].update(
        norm_map={"STATE": "MEAN_SDT"})), "unknown normalisation"),
    "another camera name": (lambda c: change(c / "config.json", lambda d: d["input_features"].update(
        {"observation.images.front": d["input_features"].pop("observation.images.top")})), "the preprocessor knows no"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused_with_four_lines(checkpoint, damage):
    edit, message = DAMAGES[damage]
    edit(checkpoint)
    with pytest.raises(SourceError) as error:
        read(checkpoint)
    assert message in error.value.what and error.value.where and error.value.why and error.value.fix


def test_an_unknown_policy_type_lists_the_known_ones(checkpoint):
    change(checkpoint / "config.json", lambda d: d.update(type="smolvla2"))
    with pytest.raises(SourceError) as error:
        load_policy(checkpoint)
    assert "smolvla2" in error.value.what and "smolvla" in error.value.why


def test_a_checkpoint_without_lerobot_says_how_to_get_it(checkpoint, monkeypatch):
    import importlib.metadata as metadata

    def missing(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SourceError) as error:
        load_policy(checkpoint)
    assert "frontends --install lerobot" in error.value.fix


def test_statistics_in_the_weights_of_older_checkpoints(checkpoint):
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (checkpoint / name).unlink()
    change(checkpoint / "config.json", lambda d: d.update(normalization_mapping=MODES))
    save_file({"model.w": torch.ones(1),
               **{f"normalize_inputs.buffer_observation_images_top.{s}": torch.ones(3, 1, 1) for s in ("mean", "std")},
               **{f"normalize_inputs.buffer_observation_state.{s}": torch.ones(2) for s in ("mean", "std")},
               "unnormalize_outputs.buffer_action.min": torch.zeros(2),
               "unnormalize_outputs.buffer_action.max": torch.ones(2)}, checkpoint / "model.safetensors")
    found = read(checkpoint)
    assert found.old_statistics and found.normalise["action"].mode == "MIN_MAX"


@pytest.mark.parametrize("mode", ["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_unnormalise_undoes_normalise(mode):
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5])
    statistics = {} if mode == "IDENTITY" else {"low": low, "high": high}
    if mode == "MEAN_STD":
        statistics = {"mean": low, "std": high}
    n, x = Normalisation(mode, statistics, 1e-8), torch.randn(1, 5, 2)
    assert torch.allclose(unnormalise(normalise(x, n), n), x, atol=1e-6)
    assert mode == "IDENTITY" or not torch.allclose(normalise(x, n), x)


def test_a_value_that_never_varied_becomes_minus_one():
    n = Normalisation("MIN_MAX", {"min": torch.tensor([2.0]), "max": torch.tensor([2.0])}, 1e-8)
    assert normalise(torch.tensor([[2.0]]), n).item() == -1.0
