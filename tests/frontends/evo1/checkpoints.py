"""Checkpoint directories as the authors' code saves them, without it: names, shapes and config.json from recorded.json,
weights from their names."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import torch

from tests.frontends.evo1 import cases
from tests.samples.recorded_weights import weight

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))


def weights() -> dict[str, torch.Tensor]:
    return {n: weight(n, tuple(shape)) for n, shape in RECORDED["weights"].items()}


def write(case: str, folder: Path) -> Path:
    """Into the current folder too: the backbone's small files, where config.json names them."""
    folder.mkdir(parents=True)
    cases.write_vlm(Path(RECORDED["config"]["vlm_name"]))
    config = RECORDED["config"] | {"normalization_type": cases.CASES[case]["normalization_type"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "norm_stats.json").write_text(json.dumps(cases.statistics()), encoding="utf-8")
    save(folder, weights())
    return folder


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """As DeepSpeed does, with what it keeps beside the weights."""
    beside = {"ds_config": {"zero_optimization": {"stage": 2}}, "ds_version": "0.14.4", "global_steps": 10,
              "param_shapes": [OrderedDict((n, t.shape) for n, t in tensors.items())], "skipped_steps": 0,
              "sparse_tensor_module_names": set(), "optimizer": None, "client_state": {}}
    torch.save({"module": OrderedDict(tensors), **beside}, folder / "mp_rank_00_model_states.pt")


def options_of(case: str) -> dict[str, str]:
    about = cases.CASES[case]
    return {"evo1_config": f"images={about['images']},attention={about['attention']},steps={cases.STEPS}"}
