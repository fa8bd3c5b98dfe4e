"""Checkpoints as LeRobot 0.3.3 writes them, statistics among the weights, against what LeRobot 0.3.3 did with them.

old_checkpoints.json was recorded by record_old.py with LeRobot 0.3.3 on transformers 4.53.3: config.json, the names in
model.safetensors, and the first actions of an observation per seed, for weights that are drawn by name (in fp32: what
pi0 computed in bf16 too).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vlacompile as vc
from tests.checkpoint_matrix import compared, share_of_spread, timed
from tests.environments.lerobot.checkpoints import backbone, dataset_statistics, sized, trained_tokenizer
from tests.environments.lerobot.parity import compiled_actions, observation
from tests.environments.lerobot061.earlier import drawn
from tests.environments.lerobot061.old_weights import NOISE, filled, weight
from tests.environments.lerobot061.test_parity import SHARE
from vlacompile.frontends.environments import ENVIRONMENTS
from vlacompile.frontends.lerobot import old_pi0

pytestmark = pytest.mark.skipif(not ENVIRONMENTS["lerobot061"].is_here(),
                                reason="needs the environment lerobot061: make test-lerobot061")
RECORDED = json.loads((Path(__file__).parent / "old_checkpoints.json").read_text(encoding="utf-8"))
EVERY = {"pi0": 7}  # of a chunk's steps are in the file


def statistics(written: dict) -> dict[str, torch.Tensor]:
    """Of every feature as `checkpoints.py` makes them, under the names of 0.3.3."""
    features = {part: {n: SimpleNamespace(shape=tuple(f["shape"])) for n, f in written[part].items()}
                for part in ("input_features", "output_features")}
    return {f"buffer_{n.replace('.', '_')}.{s}": t for n, found in dataset_statistics(features).items()
            for s, t in found.items()}


def write(kind: str, folder: Path) -> None:
    found, by_name = RECORDED[kind], statistics(RECORDED[kind]["config"])

    tensors = {n: weight(kind, found["tied"].get(n, n), shape) for n, shape in found["weights"].items()}
    tensors |= {n: filled(*buffer) for n, buffer in found["buffers"].items()}
    tensors |= {n: by_name[n.split(".", 1)[1]].clone() for n in found["statistics"]}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = found["config"] | ({"vlm_model_name": backbone(folder / "backbone", False)} if kind == "smolvla" else {})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def local_tokenizer(folder: Path) -> str:
    """In place of the hub's, whose name is in LeRobot's code."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(tokenizer_object=trained_tokenizer(["<pad>", "<eos>", "<bos>", "<unk>"]),
                                   pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    made.save_pretrained(folder / "tokenizer")
    return str(folder / "tokenizer")


@pytest.mark.parametrize("kind", RECORDED)
def test_an_old_checkpoint_means_what_it_meant(kind, tmp_path, record_property):
    folder = tmp_path / "pretrained_model"
    with sized(kind, real=False):
        write(kind, folder)
        tokenizer = local_tokenizer(folder) if kind == "pi0" else None
    want = np.array(RECORDED[kind]["actions"])
    steps = want.shape[1] if kind not in EVERY else RECORDED[kind]["config"]["n_action_steps"]
    features = {n: SimpleNamespace(shape=f["shape"]) for n, f in RECORDED[kind]["config"]["input_features"].items()}
    policy = SimpleNamespace(config=SimpleNamespace(input_features=features, n_action_steps=steps,
                                                    action_chunk_size=steps))
    with sized(kind, real=False), mock.patch.object(old_pi0, "TOKENIZER", tokenizer):
        bundle, seconds = timed(lambda: vc.build(folder, out=tmp_path / "a.vlab"))
        got = np.stack([compiled_actions(bundle, folder, policy, observation(policy, seed), drawn(NOISE[kind]))
                        for seed in range(2)])[:, ::EVERY.get(kind, 1)]
    spread = want.std((0, 1))
    share = share_of_spread(got, want)
    assert share < SHARE
    compared(record_property, bundle, share, files="LeRobot 0.3.3", policy=kind, oracle="LeRobot 0.3.3",
             seconds=seconds)
    assert (np.abs(got[0] - want[1]).max(0) / spread).max() > 10 * SHARE, "another observation gives the same actions"
    assert bundle.manifest["provenance"]["origin"]["computed as"] == "LeRobot 0.3.3, transformers 4.51"
