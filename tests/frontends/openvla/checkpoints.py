"""Checkpoint directories as the authors' code saves them, without it: names, shapes and JSON files from recorded.json,
weights from their names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.frontends.openvla.cases import CASES, statistics, tokenizer, weights
from tests.samples.recorded_weights import unfolded

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))
SHARDS = 3


def write(case: str, folder: Path) -> Path:
    recorded = RECORDED[case]
    folder.mkdir(parents=True)
    for name, content in recorded["files"].items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "dataset_statistics.json").write_text(json.dumps(statistics(case)), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    write_shards(folder, weights(case, "model", unfolded(recorded["weights"])))
    for name, rows in recorded["parts"].items():
        # trained on several devices, all but the vision transformers have a prefix
        prefix = "" if name == "vision_backbone" else "module."
        part = {prefix + n: t for n, t in weights(case, name, unfolded(rows)).items()}
        torch.save(part, folder / f"{name}--50000_checkpoint.pt")
    return folder


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    index, names = {}, sorted(tensors)
    for i in range(SHARDS):
        file = f"model-{i + 1:05}-of-{SHARDS:05}.safetensors"
        part = {n: tensors[n] for n in names[i::SHARDS]}
        save_file(part, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")


def options_of(case: str) -> dict[str, str]:
    """What a person spells out."""
    about, found = CASES[case], {}
    if about["platform"] == "bridge":
        found["unnorm_key"] = "fractal"
    if about["head"] is not None:
        found["oft_config"] = f"{about['platform']},images={about['images']}"
        if about["head"] == "diffusion":
            found["oft_config"] += f",steps={about['steps']},trained_steps={about['trained_steps']}"
    return found
