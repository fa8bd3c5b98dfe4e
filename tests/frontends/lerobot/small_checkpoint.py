"""The files of a small LeRobot checkpoint, and edits of them: what the tests of this folder read, without LeRobot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"
IN, OUT = "normalizer_processor", "unnormalizer_processor"
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


def step_of(document: dict, name: str) -> dict:
    return next(s for s in document["steps"] if s["registry_name"] == name)


def edit_step(file: str, name: str, edit):
    return lambda c: change(c / file, lambda d: edit(step_of(d, name)))


def drop_step(file: str, name: str):
    return lambda c: change(c / file, lambda d: d["steps"].remove(step_of(d, name)))


def modes(file: str, name: str, **changed):
    return edit_step(file, name, lambda s: s["config"].update(norm_map=MODES | changed))


def resave(change_tensors):
    """The statistics file with some tensors changed."""
    def edit(c: Path) -> None:
        tensors = load_file(c / "statistics.safetensors")
        change_tensors(tensors)
        save_file(tensors, c / "statistics.safetensors")
    return edit


def say_modes(c: Path, **changed) -> None:
    change(c / "config.json", lambda d: d.update(normalization_mapping=MODES | changed))


def both(*edits):
    return lambda c: [edit(c) for edit in edits]


def of_kind(checkpoint: Path, kind: str, **config) -> Path:
    change(checkpoint / "config.json", lambda d: d.update(type=kind, **config))
    if kind != "act":
        change(checkpoint / PRE, lambda d: d["steps"].append({"registry_name": "tokenizer_processor", "config": {
            "tokenizer_name": "somewhere"}}))
    return checkpoint


def weights_named(c: Path, *names: str) -> None:
    save_file({n: torch.ones(1) for n in names}, c / "model.safetensors")


HEAD = "model.paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
