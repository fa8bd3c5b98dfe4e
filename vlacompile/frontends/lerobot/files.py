"""Names and reading of the files of a LeRobot checkpoint directory. Must not know what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vlacompile.errors import SourceError

WEIGHTS, PREPROCESSOR, POSTPROCESSOR = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
ADAPTER = "adapter_model.safetensors"  # instead of the weights, if only an adapter was trained (PEFT)
TRAINING = "train_config.json"  # configuration of the training; only used to infer the version
# Steps that only concern training or running a policy: batching, devices. The compiled policy's fixed shapes replace
# them.
HOST_STEPS = frozenset({"to_batch_processor", "device_processor"})


def read_json(path: Path) -> dict:
    """Raises SourceError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        return content
    except (OSError, ValueError) as error:
        raise SourceError(f"the checkpoint's {path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, completely") from error


def read_tensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose names have one of the prefixes. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys() if k.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, completely") from error


def names_of_tensors(path: Path) -> frozenset[str]:
    """Names of a safetensors file's tensors, from its header. Raises SourceError."""
    try:
        with safe_open(path, "pt") as file:
            return frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise SourceError(f"{path.name} cannot be read", where=str(path), why=str(error),
                          fix="copy the checkpoint again, completely") from error
