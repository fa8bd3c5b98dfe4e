"""Names and reading of the files of a LeRobot checkpoint directory. Must not know what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vlacompile.errors import SourceError

WEIGHTS, PREPROCESSOR, POSTPROCESSOR = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
ADAPTER = "adapter_model.safetensors"  # in place of the weights, where only an adapter was trained (PEFT)
TRAINING = "train_config.json"  # what the training was told; nothing of it is needed here
# Steps that only concern a training or driving program: batching, devices. What they do is done by the compiled
# policy's declared shapes.
HOST_STEPS = frozenset({"to_batch_processor", "device_processor"})


def read_json(path: Path) -> dict:
    """Raises SourceError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        return content
    except (OSError, ValueError) as error:
        raise SourceError(f"the checkpoint's {path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, whole") from error


def read_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose names begin so. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys() if k.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, whole") from error


def names_of_tensors(path: Path) -> frozenset[str]:
    """Of a safetensors file, from its header alone. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, whole") from error
