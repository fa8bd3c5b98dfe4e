"""Checkpoint directories as openpi saves them, without it: names and shapes from recorded.json, weights from their
names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.frontends.openpi.cases import CASES, statistics, tokenizer
from tests.samples.recorded_weights import unfolded, weight

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))


def weights(case: str) -> dict[str, torch.Tensor]:
    return {n: weight(n, s) for n, s in unfolded(RECORDED[case]["weights"]).items()}


def write(case: str, folder: Path) -> Path:
    """The checkpoint, and the tokenizer beside it, which openpi does not save."""
    assets = folder / "assets" / CASES[case]["asset"]
    assets.mkdir(parents=True)
    (assets / "norm_stats.json").write_text(json.dumps(statistics(case)), encoding="utf-8")
    save_file(weights(case), folder / "model.safetensors", {"format": "pt"})
    (folder.parent / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    return folder
